"""The table: what goes forward comes back, and every name is accounted for on both sides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.errors import ConfigError, WeightsError
from qkv.weights.files import tensor_bytes
from qkv.weights.table import Table, flat, fuse, split, transpose

GPT = Table(
    {
        "h.{i}.ln_1.{p}": "blocks.{i}.attn_norm.{p}",
        "h.{i}.attn.c_attn.{p}": split("blocks.{i}.attn.{q,k,v}.{p}", transposed=True),
        "h.{i}.mlp.c_fc.{p}": transpose("blocks.{i}.ff.inner.{p}"),
        "wte.weight": "embed.weight",
    },
    skip={"*.attn.bias": "causal mask stored as a buffer"},
    tied={"lm_head.weight": "wte.weight"},
)
BERT = Table(
    {
        "layer.{i}.{query,key,value}.{p}": fuse("blocks.{i}.qkv.{p}", parts=(4, 2, 2)),
        "layer.{i}.{ln_a,ln_b}.{p}": "blocks.{i}.{norm_a,norm_b}.{p}",
    }
)


def gpt(layers: int = 2, C: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = {"wte.weight": torch.randn(11, C, generator=g)}
    for i in range(layers):
        x[f"h.{i}.ln_1.weight"] = torch.randn(C, generator=g)
        x[f"h.{i}.attn.c_attn.weight"] = torch.randn(C, 3 * C, generator=g)
        x[f"h.{i}.attn.c_attn.bias"] = torch.randn(3 * C, generator=g)
        x[f"h.{i}.mlp.c_fc.weight"] = torch.randn(C, 5, generator=g)
        x[f"h.{i}.mlp.c_fc.bias"] = torch.randn(5, generator=g)
    return x


def bert(layers: int = 2, D: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = {}
    for i in range(layers):
        for word, part in (("query", 4), ("key", 2), ("value", 2)):
            x[f"layer.{i}.{word}.weight"] = torch.randn(part * D, 3, generator=g)
            x[f"layer.{i}.{word}.bias"] = torch.randn(part * D, generator=g)
        x |= {f"layer.{i}.ln_{n}.weight": torch.randn(3, generator=g) for n in "ab"}
    return x


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.integers(0, 4),
    st.integers(1, 6),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_back_is_the_inverse_of_forward_byte_for_byte(layers, size, seed, dtype):
    for table, make in ((GPT, gpt), (BERT, bert)):
        theirs = {n: t.to(dtype) for n, t in make(layers, size, seed).items()}
        ours = table.forward(theirs)
        assert tensor_bytes(table.backward(ours)) == tensor_bytes(theirs)
        assert tensor_bytes(table.forward(table.backward(ours))) == tensor_bytes(ours)


def test_a_split_and_transposed_weight_computes_the_same():
    theirs = gpt()
    ours = GPT.forward(theirs)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    q, k, v = (x @ theirs["h.1.attn.c_attn.weight"] + theirs["h.1.attn.c_attn.bias"]).split(4, -1)
    for name, expected in (("q", q), ("k", k), ("v", v)):
        weight, bias = ours[f"blocks.1.attn.{name}.weight"], ours[f"blocks.1.attn.{name}.bias"]
        torch.testing.assert_close(torch.nn.functional.linear(x, weight, bias), expected)


def test_a_fused_weight_is_the_pieces_in_order():
    theirs = bert()
    ours = BERT.forward(theirs)["blocks.0.qkv.weight"]
    pieces = [theirs[f"layer.0.{n}.weight"] for n in ("query", "key", "value")]
    assert torch.equal(ours, torch.cat(pieces)) and ours.shape == (16, 3)


def test_split_pieces_own_their_memory():
    ours = GPT.forward(gpt())
    q, k = ours["blocks.0.attn.q.bias"], ours["blocks.0.attn.k.bias"]
    assert q.untyped_storage().data_ptr() != k.untyped_storage().data_ptr()


def test_every_unknown_name_is_an_error_on_both_sides():
    theirs = gpt()
    for name in theirs:
        strange = {n.replace(name, "strange." + name): t for n, t in theirs.items()}
        with pytest.raises(
            WeightsError, match=r"1 of 11 tensors match no row, first: strange\."
        ) as e:
            GPT.forward(strange)
        assert e.value.code == "QKV-051" and e.value.fix
    ours = GPT.forward(theirs)
    with pytest.raises(WeightsError, match="2 of 21 tensors match no row, first: x, y"):
        GPT.backward(ours | {"x": torch.ones(1), "y": torch.ones(1)})


def test_an_incomplete_group_names_what_is_missing():
    theirs = bert()
    del theirs["layer.1.key.bias"]
    with pytest.raises(
        WeightsError, match=r"1 of 3 tensors missing, first: layer\.1\.key\.bias"
    ) as e:
        BERT.forward(theirs)
    assert e.value.code == "QKV-051"
    ours = GPT.forward(gpt())
    del ours["blocks.0.attn.v.weight"]
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.v\.weight"):
        GPT.backward(ours)


@pytest.mark.parametrize("size", [(4, 13), (4, 1), ()])
def test_a_tensor_that_does_not_split_evenly_is_an_error(size):
    with pytest.raises(WeightsError, match="does not split into 3") as e:
        GPT.forward({"h.0.attn.c_attn.weight": torch.ones(size)})
    assert e.value.code == "QKV-052"


@pytest.mark.parametrize(
    "shapes", [[(8, 3), (4, 3), (2, 3)], [(8, 3), (4, 2), (4, 3)], [(), (), ()]]
)
def test_pieces_of_the_wrong_size_are_an_error(shapes):
    words = ("query", "key", "value")
    theirs = {f"layer.0.{w}.weight": torch.ones(s) for w, s in zip(words, shapes, strict=True)}
    with pytest.raises(WeightsError, match="cannot be joined: layer.0.query.weight") as e:
        BERT.forward(theirs)
    assert e.value.code == "QKV-052"


def test_skips_say_why_and_are_dropped():
    theirs = gpt() | {"h.0.attn.bias": torch.ones(1), "h.1.attn.bias": torch.ones(1)}
    assert GPT.skipped(theirs) == dict.fromkeys(
        ["h.0.attn.bias", "h.1.attn.bias"], "causal mask stored as a buffer"
    )
    assert tensor_bytes(GPT.forward(theirs)) == tensor_bytes(GPT.forward(gpt()))


def test_a_tied_copy_must_be_equal_to_be_dropped():
    theirs = gpt()
    theirs["lm_head.weight"] = theirs["wte.weight"].clone()
    assert tensor_bytes(GPT.forward(theirs)) == tensor_bytes(GPT.forward(gpt()))
    theirs["lm_head.weight"][0, 0] += 1
    with pytest.raises(WeightsError, match="must be the same tensor as wte.weight"):
        GPT.forward(theirs)


def test_a_wildcard_is_one_word_and_the_same_everywhere():
    table = Table({"{a}.x.{a}.w": "y.{a}.w"})
    assert list(table.forward({"1.x.1.w": torch.ones(1)})) == ["y.1.w"]
    for name in ("1.x.2.w", "1.2.x.1.2.w", "1.x.1.w.w", "1xx.1.w", "1.x.1.w\n"):
        with pytest.raises(WeightsError):
            table.forward({name: torch.ones(1)})


def test_names_that_two_rows_claim_are_an_error():
    with pytest.raises(WeightsError, match="matches several rows: 'a.{p}', '{x}.w'"):
        Table({"a.{p}": "b.{p}", "{x}.w": "c.{x}"}).forward({"a.w": torch.ones(1)})
    with pytest.raises(WeightsError, match="two rows make c"):
        Table({"a": "c", "b": "c"}).forward({"a": torch.ones(1), "b": torch.ones(1)})


@pytest.mark.parametrize(
    "rows",
    [
        {"a.{i}": "b"},
        {"a.{i}": "b.{j}"},
        {"a.{x,y}": "b"},
        {"a": "b.{x,y}"},
        {"a.{x,y}": "b.{x,y,z}"},
        {"a.{x,y}.{u,v}": "b.{x,y}.{u,v}"},
        {"a": split("b")},
        {"a.{x,y}": split("b.{x,y}")},
        {"a": fuse("b")},
        {"a": split("b.{x,y}", parts=(1, 1, 1))},
        {"a": split("b.{x,y}", parts=(1, 0))},
        {"a": split("b.{x,y}", axis=-1)},
    ],
)
def test_a_row_that_cannot_be_read_both_ways_is_refused_at_birth(rows):
    with pytest.raises(ConfigError) as e:
        Table(rows)
    assert e.value.fix


WAVES = torch.arange(6.0).view(3, 2).sin()
MARIAN = Table(
    {"wte.weight": "embed.weight", "final_logits_bias": flat("head.bias")},
    absent={"final_logits_bias": (1, 3)},
    known={"pos.weight": lambda: WAVES},
)


def test_a_row_of_theirs_is_a_vector_of_ours_and_back():
    x = {"wte.weight": torch.randn(3, 2), "final_logits_bias": torch.randn(1, 3)}
    made = MARIAN.forward(x)
    assert made["head.bias"].shape == (3,)
    back = MARIAN.backward(made)
    assert back.keys() == x.keys() and all(torch.equal(back[n], x[n]) for n in x)
    with pytest.raises(WeightsError) as e:
        MARIAN.forward(x | {"final_logits_bias": torch.randn(2, 3)})
    assert e.value.code == "QKV-052" and "final_logits_bias" in e.value.seen


def test_what_old_files_leave_out_is_zero_in_their_type():
    made = MARIAN.forward({"wte.weight": torch.randn(3, 2, dtype=torch.float16)})
    assert torch.equal(made["head.bias"], torch.zeros(3, dtype=torch.float16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_computed_table_must_be_the_files(dtype):
    x = {"wte.weight": torch.randn(3, 2)}
    assert MARIAN.forward(x | {"pos.weight": WAVES.to(dtype)}).keys() == {
        "embed.weight",
        "head.bias",
    }
    assert "pos.weight" in MARIAN.skipped(x | {"pos.weight": WAVES})
    for wrong in (WAVES.to(dtype) + 0.02, WAVES[:2].to(dtype), WAVES.to(dtype) / 0):
        with pytest.raises(WeightsError) as e:
            MARIAN.forward(x | {"pos.weight": wrong})
        assert e.value.code == "QKV-051" and "pos.weight" in e.value.seen


def test_older_endings_of_names_are_made_new():
    table = Table({"a.LayerNorm.{p}": "norm.{p}"}, old={"LayerNorm.gamma": "LayerNorm.weight"})
    assert table.modern("a.LayerNorm.gamma") == "a.LayerNorm.weight"
    assert table.modern("a.gamma") == "a.gamma"
    assert table.modern("a.LayerNorm.weight") == "a.LayerNorm.weight"
