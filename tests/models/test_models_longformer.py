"""Longformer against transformers; tolerances: parity.py.

The reference takes its softmax in float32 even of float64 scores; the tests give it one of the scores' own type."""

import json
from dataclasses import replace
from typing import Any

import parity
import pytest
import torch
import transformers as theirs
from safetensors.torch import save_file
from sparse_parity import (
    ONE,
    THREE,
    V,
    batch_for,
    check_logits,
    logits_of,
    reference_loss,
    states_of,
)
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.errors import ConfigError, WeightsError
from qkv.learn.terms import term_loss, terms_of
from qkv.look.record import record
from qkv.models import build, configure, describe, hf, longformer, windowed
from qkv.models.interface import state_of
from qkv.models.windowed import LongAttention, dropped
from qkv.parts import kernels
from qkv.parts.attention import weigh
from qkv.parts.dropout import Dropout
from qkv.parts.patterns import Allowed, Window
from qkv.shapes import Batch, pad

WINDOW = 8
LENGTHS = (WINDOW, 1, 2 * WINDOW + 3, 3 * WINDOW + 1, 13)


def small(**more: Any) -> Any:
    sizes = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20)
    usual = {"vocab_size": V, "max_position_embeddings": 40, "attention_window": WINDOW}
    return theirs.LongformerConfig(**{**usual, **sizes, **more})


CASES: dict[str, tuple[str, bool, dict[str, Any]]] = {  # head, tokens marked by hand, settings
    "none": ("none", True, {}),
    "mlm": ("mlm", False, {}),
    "mlm-marked": ("mlm", True, {"type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "classes": ("classes", False, {"id2label": THREE}),
    "classes-marked": ("classes", True, {}),
    "value": ("classes", False, {"id2label": ONE}),
    "many": ("classes", True, {"id2label": THREE, "problem_type": "multi_label_classification"}),
    "tags": ("tags", True, {"id2label": THREE}),
    "span": ("span", True, {}),
    "untied": ("mlm", True, {"tie_word_embeddings": False}),
    "relu": ("mlm", True, {"hidden_act": "relu"}),  # its word head keeps gelu
    "gelu-new": ("tags", False, {"hidden_act": "gelu_new"}),
    "window-each": ("mlm", True, {"attention_window": [4, 8]}),
    "small-window": ("mlm", True, {"attention_window": 4}),
    "wide-window": ("none", True, {"attention_window": [64, 64]}),
    "odd-heads": ("mlm", True, {"hidden_size": 15, "num_attention_heads": 3}),
    "padding-id-5": ("mlm", True, {"pad_token_id": 5}),
}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Their softmax in the type of its scores."""
    plain = F.softmax
    monkeypatch.setattr(F, "softmax", lambda x, dim=None, dtype=None, **k: plain(x, dim=dim))


def made(name: str, dtype: torch.dtype = torch.float64) -> Any:
    head, _, more = CASES[name]
    cls = getattr(theirs, longformer.HEADS[head])
    return parity.reference(cls, small(**more), seed=len(name), dtype=dtype)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    model = made(request.param)
    module, config, net = parity.converted(model)
    return model, module, config, net, batch_for(config, LENGTHS, 6, CASES[request.param][1])


def inputs(b: Batch) -> dict[str, Any]:
    made: dict[str, Any] = {"input_ids": b.source, "attention_mask": b.keep.long()}
    if b.marked is not None:
        made["global_attention_mask"] = b.marked.long()
    return made | {"token_type_ids": b.segment}


def test_states(case):
    model, _, config, net, b = case
    with torch.no_grad():
        seen, out = states_of(net, b), model(**inputs(b), output_hidden_states=True)
    for ours, want in zip(seen, out.hidden_states[1:], strict=True):
        assert parity.largest(ours, want, b.keep) < 1e-10
    if config.head == "none":
        assert float((net.encode(b).summary - out.pooler_output).detach().abs().max()) < 1e-10


def window_maps(out: Any, b: Batch, i: int, radius: int) -> torch.Tensor:
    """Their weights of a layer, spread out to (B, H, S, S): first those of the marked tokens, then the window's; the rows
    of marked tokens are among the global ones."""
    near = out.attentions[i]
    B, H, S, _ = near.shape
    marked = torch.zeros_like(b.keep) if b.marked is None else b.marked & b.keep
    most = int(marked.sum(1).max())
    made = torch.zeros(B, H, S, S + 2 * radius, dtype=near.dtype)
    for t in range(S):
        made[:, :, t, t : t + 2 * radius + 1] = near[:, :, t, most:]
    made = made[..., radius : radius + S].clone()
    for r in range(B):
        places = marked[r].nonzero()[:, 0]
        for n, at in enumerate(places.tolist()):
            made[r, :, :, at] += near[r, :, :, n]
            made[r, :, at] = out.global_attentions[i][r, :, :S, n]
    return made


def test_maps(case):
    model, _, config, net, b = case
    with torch.no_grad(), record(net) as maps:
        net.encode(b)
        out = model(**inputs(net.prepare(b)), output_attentions=True)
    for i, window in enumerate(config.each("window")):
        ours = maps[f"encoder.blocks.{i}.attn"].transpose(1, 2)
        want = window_maps(out, net.prepare(b), i, window // 2).transpose(1, 2)
        assert parity.largest(ours, want, b.keep) < 1e-10
        assert_close(ours[b.keep].sum(-1), torch.ones_like(ours[b.keep].sum(-1)))


def test_logits(case):
    model, _, config, net, b = case
    if config.head == "none":
        return
    with torch.no_grad():
        check_logits(net, config, b, model(**inputs(b)))


def test_losses_and_gradients(case):
    model, module, config, net, b = case
    want = reference_loss(config, b, model(**inputs(b)))
    if config.head == "none":
        ours = net.encode(b).states[b.keep].square().sum()
    else:
        terms = [term_loss(t) for t in terms_of(net.loss_inputs(b))]
        ours = sum((t.smoothed / t.tokens for t in terms), torch.zeros((), dtype=torch.float64))
    assert abs(float(ours.detach() - want.detach())) < 1e-10 * max(1.0, float(want.detach()))
    net.zero_grad(), model.zero_grad()
    ours.backward(), want.backward()
    parity.check_gradients(net, module, config, model)


def test_round_trip_is_exact(case):
    parity.check_round_trip(case[0])


def test_transformers_loads_what_we_write(case, tmp_path):
    model, module, config, net, b = case
    (tmp_path / "config.json").write_text(json.dumps(module.to_hf(config)))
    written = hf.theirs(module, config, state_of(net))
    save_file(written, tmp_path / "model.safetensors", {"format": "pt"})
    again, info = type(model).from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float64, attn_implementation="eager"
    )
    assert set(info["missing_keys"]) <= (set() if config.tie else {"lm_head.bias"})
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    with torch.no_grad():
        one, two = (m(**inputs(b)) for m in (model, again.eval()))
    for name, want in one.items():
        assert_close(two[name], want, atol=1e-13, rtol=0, msg=name)  # other addresses of memory


@pytest.mark.parametrize("S", [1, 7, 8, 9, 15, 16, 17, 24, 25])
def test_every_length_up_to_three_windows_and_one(S):
    """One text alone, and the same text in a batch with a longer one."""
    model = made("mlm-marked")
    _, config, net = parity.converted(model)
    for lengths in ((S,), (S, 26)):
        b = replace(batch_for(config, lengths, 6, True), segment=None)
        given = {k: v for k, v in inputs(b).items() if k != "token_type_ids"}
        with torch.no_grad():
            check_logits(net, config, b, model(**given))


@pytest.mark.parametrize("name", ["mlm-marked", "classes", "span"])
def test_float32_is_near(name):
    model = made(name, torch.float32)
    _, config, net = parity.converted(model)
    b = batch_for(config, LENGTHS, 6, CASES[name][1])
    with torch.no_grad():
        out = model(**inputs(b))
        check_logits(net, config, b, out, 1e-5 * float(logits_of(config.head, out).abs().max()))


# ---- global tokens


def test_the_first_token_is_global_for_classes_unless_the_user_says_otherwise():
    model = made("classes")
    _, config, net = parity.converted(model)
    b = batch_for(config, LENGTHS, 6)
    first = torch.zeros_like(b.keep)
    first[:, 0] = True
    none = torch.zeros_like(b.keep)
    with torch.no_grad():
        usual, chosen, other = (net.logits(replace(b, marked=m)) for m in (None, first, none))
        assert torch.equal(usual, chosen)
        assert not torch.equal(usual, other)
        want = model(**inputs(replace(b, marked=none))).logits
    assert float((other - want).abs().max()) < 1e-10


def test_the_question_is_global_for_answers():
    """As the reference: all before the first of three separators."""
    model = made("span")
    _, config, net = parity.converted(model)
    rows = [[0, 7, 8, 2, 2, 9, 10, 11, 12, 2], [0, 7, 8, 9, 10, 2, 2, 11, 2]]
    ids, keep = pad(rows, 1)
    with torch.no_grad():
        ours = net.logits(Batch(ids, keep))
        want = logits_of("span", model(input_ids=ids, attention_mask=keep.long()))
    assert parity.largest(ours, want, keep) < 1e-10
    marked = net.prepare(Batch(ids, keep)).marked
    assert marked.sum(1).tolist() == [3, 5]
    none = net.prepare(Batch(ids.masked_fill(ids == 2, 3), keep)).marked
    assert not none.any()  # no separator: no question


def test_padding_is_never_global():
    model = made("mlm-marked")
    _, config, net = parity.converted(model)
    b = batch_for(config, LENGTHS, 6)
    everything = torch.ones_like(b.keep)
    with torch.no_grad():
        ours = net.logits(replace(b, marked=everything))
        want = model(**inputs(replace(b, marked=everything))).logits
    assert parity.largest(ours, want, b.keep) < 1e-10


def test_packed_texts_do_not_see_each_other():
    net = parity.converted(made("mlm-marked"))[2]
    one, two = parity.rows(V, (11, 13), low=6)
    ids, group = torch.tensor([one + two]), torch.tensor([[0] * 11 + [1] * 13])
    keep, marked = torch.ones(1, 24, dtype=torch.bool), torch.arange(24)[None] % 5 == 0
    with torch.no_grad():
        packed = net.logits(Batch(ids, keep, group=group, marked=marked))[0]
        parts = ((one, marked[:, :11]), (two, marked[:, 11:]))
        alone = [
            net.logits(Batch(torch.tensor([r]), keep[:, : len(r)], marked=m))[0] for r, m in parts
        ]
    assert_close(packed, torch.cat(alone), atol=1e-12, rtol=0)


# ---- files as they are found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "laplace"}, "hidden_act"),
        ({"attention_window": 7}, "half of it"),
        ({"attention_window": 0}, "window"),
        ({"attention_window": [8]}, "attention_window"),
        ({"attention_window": "8"}, "attention_window"),
        ({"attention_dilation": [2, 2]}, "attention_dilation"),
        ({"architectures": ["LongformerForQuestionAnswering"], "id2label": {"0": "a"}}, "a last"),
        ({"pad_token_id": None}, "pad_id"),
        ({"hidden_size": "12"}, "hidden_size"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_named(values, said):
    with pytest.raises(ConfigError, match=said):
        hf.configured(longformer, small().to_dict() | values)


def test_unknown_heads_are_named():
    given = small().to_dict() | {"architectures": ["LongformerForMultipleChoice"]}
    with pytest.raises(WeightsError, match="LongformerForMultipleChoice"):
        hf.configured(longformer, given)


def test_absent_keys_have_their_defaults():
    short = hf.configured(longformer, {"model_type": "longformer"})
    assert short == hf.configured(longformer, theirs.LongformerConfig().to_dict())


def test_keys_of_published_files_are_known():
    given = small().to_dict() | {"attention_mode": "longformer", "ignore_attention_mask": False}
    assert hf.configured(longformer, given) == hf.configured(longformer, small().to_dict())


# ---- our own


def fresh(**more: Any) -> tuple[longformer.LongformerConfig, Any]:
    torch.manual_seed(0)
    config = configure({"family": "longformer", "size": "tiny", "vocab_size": V, **more})
    return config, build(config).eval()


def test_describe_and_configure_are_inverse():
    config, _ = fresh(window=[4, 8], dilation=[1, 3], dilated_heads=1, marked="first")
    assert configure(describe(config)) == config


def test_dilated_heads_see_every_third_token():
    """The first head sees its window, the last one of layer 1 sees tokens three apart; the marked ones see all."""
    config, net = fresh(window=4, dilation=[1, 3], dilated_heads=1)
    ids, keep = pad(parity.rows(V, (20, 16)), 1)
    marked = torch.zeros_like(keep)
    marked[0, 7] = True
    with torch.no_grad(), record(net) as maps:
        plain = net.logits(Batch(ids, keep, marked=marked))
    i, j = torch.arange(20)[:, None], torch.arange(20)
    for layer, steps in enumerate([(1, 1), (1, 3)]):
        for head, step in enumerate(steps):
            want = ((i - j).abs() <= 2 * step) & ((i - j) % step == 0)
            seen = maps[f"encoder.blocks.{layer}.attn"][0, head] > 0
            assert torch.equal(seen, want | (i == 7) | (j == 7))
    net.train()
    for block in net.encoder.blocks:  # the path with dropout is another one
        block.attn.dropout.p = 1e-12
        block.drop.p = block.ff.drop.p = 0.0
    net.embed.drop.p = 0.0
    assert parity.largest(net.logits(Batch(ids, keep, marked=marked)), plain, keep) < 1e-5
    assert hf.configured(longformer, longformer.to_hf(config)) != config  # saved as ours


def test_contradictions_are_refused():
    for bad in ({"window": 5}, {"window": [4]}, {"dilation": 0}, {"dilated_heads": 3}):
        with pytest.raises(ConfigError):
            fresh(**bad)
    with pytest.raises(ConfigError, match="no head 'nsp'"):
        fresh(head="nsp")


@pytest.mark.parametrize("head", ["mlm", "classes", "tags", "span"])
def test_one_batch_is_learned_by_heart(head):
    labels = ["a", "b", "c"] if head in ("classes", "tags") else []
    config, net = fresh(
        head=head, labels=labels, d_model=32, window=4, dropout=0.0, attn_dropout=0.0
    )
    b, steps = batch_for(config, (7, 1, 16, 12), 6), []
    optim = torch.optim.Adam(net.train().parameters(), 5e-3)
    for _ in range(40):
        terms = [term_loss(t) for t in terms_of(net.loss_inputs(b))]
        loss = sum((t.smoothed / t.tokens for t in terms), torch.zeros(()))
        optim.zero_grad(), loss.backward(), optim.step()
        steps.append(float(loss.detach()))
    assert steps[-1] < 0.1 * steps[0]


@pytest.mark.parametrize("S", [5, 16, 41])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("window", [2, 8, 40])
def test_dropped_weights_are_those_of_the_definition(S, marked, window):
    """Training with dropout works on blocks; without a number dropped it is the plain path, values and gradients."""
    torch.manual_seed(1)
    config = fresh(window=window, d_model=12, n_heads=2, n_layers=1)[0].stack()
    attn = LongAttention(config.attention(None), window // 2, None, 0).double().train()
    keep = torch.arange(S) < torch.tensor([[S], [S // 2], [1]])
    marks = (torch.rand(3, S) < 0.3) if marked else None
    allowed = Allowed.of(config.patterns[0], keep, marked=marks)
    x, found = torch.randn(3, S, 12, dtype=torch.float64), []
    weight = torch.randn(3, S, 12, dtype=torch.float64) * keep[..., None]
    for p in (0.0, 1e-12):
        attn.dropout.p = p
        attn.zero_grad()
        (attn(attn.queries(x), *attn.keys(x), allowed) * weight).sum().backward()
        found.append([param.grad.clone() for param in attn.parameters() if param.grad is not None])
    for a, b in zip(*found, strict=True):
        assert_close(a, b, atol=1e-10, rtol=0)  # 1 / (1 - p) and other orders of the same sums


def test_a_share_of_the_weights_is_dropped():
    """Values of 1: each row is the sum of its weights that stayed, over 1 - p; rows sum to 1 in the mean."""
    torch.manual_seed(0)
    q = torch.randn(4, 4, 400, 8)
    allowed = Allowed.of(Window(32), torch.ones(4, 400, dtype=torch.bool))
    drop = Dropout(0.25).train()
    kept = dropped(q, q, torch.ones_like(q), allowed, 32, drop, 0.0)[..., 0]
    # 65 weights of 1/65 a row: variance p / (1 - p) / 65; the mean of 6,400 rows is known to 0.001
    assert abs(float(kept.mean()) - 1) < 0.005
    assert float(kept[:, :, 64:-64].var()) == pytest.approx(0.25 / 0.75 / 65, rel=0.1)


def test_dilated_heads_of_long_texts_take_the_kernel_with_dropout_as_well(monkeypatch):
    """With 1e-12 of the weights dropped the states are those without; maps of all pairs are never made."""
    config, net = fresh(window=32, dilation=2, dilated_heads=1, max_positions=900)
    ids, keep = pad(parity.rows(V, (800, 640)), 1)
    batch = Batch(ids, keep, marked=torch.zeros_like(keep).index_fill_(1, torch.tensor([0]), True))
    with torch.no_grad():
        plain = net.encode(batch).states
    net.train()
    for block in net.encoder.blocks:
        block.attn.dropout.p = 1e-12
        block.drop.p = block.ff.drop.p = 0.0
    net.embed.drop.p = 0.0
    made = []
    monkeypatch.setattr(windowed, "weigh", lambda q, *x, **k: made.append(q.shape[2]) or weigh(q, *x, **k))  # fmt: skip
    states = net.encode(batch).states
    states.square().mean().backward()
    assert parity.largest(states, plain, keep) < 1e-5  # float32, 2 layers of norms
    assert made and max(made) <= 16  # the marked tokens alone


def test_long_texts_take_the_kernel_of_windows(monkeypatch):
    """Long enough for kernels that know a window: the reference's states, and gradients."""
    model = parity.reference(theirs.LongformerModel, small(max_position_embeddings=700), seed=3)
    module, config, net = parity.converted(model)
    b, calls, sparse = batch_for(config, (640, 300, 513), 6, True), [], kernels.sparse
    monkeypatch.setattr(kernels, "sparse", lambda *x, **k: calls.append(1) or sparse(*x, **k))
    marked = b.marked & (torch.rand(b.marked.shape) < 0.1)
    b = replace(b, marked=marked)
    out = model(**inputs(b)).last_hidden_state
    ours = net.encode(b).states
    assert calls and parity.largest(ours, out, b.keep) < 1e-10
    net.zero_grad(), model.zero_grad()
    ours[b.keep].square().sum().backward(), out[b.keep].square().sum().backward()
    parity.check_gradients(net, module, config, model)
