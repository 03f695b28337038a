"""Products of a step: equal to the plain ones, the bits of a row its own, never those of weights that have changed."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.decode.engine import Engine
from qkv.decode.search import SearchConfig
from qkv.models import build, configure
from qkv.parts import product
from qkv.parts.attention import Attention, AttentionConfig
from qkv.parts.product import Linear, Step, filled_product
from qkv.shapes import Batch

SIZES = [(64, 48, False), (128, 512, True), (200, 1000, True), (2048, 96, False), (512, 2003, True)]


def step_of(rows, width):
    return torch.randn(rows, 1, width)


@pytest.mark.parametrize("d_in, d_out, bias", SIZES)
@torch.no_grad()
def test_a_row_has_the_bits_it_has_alone(d_in, d_out, bias):
    layer = Linear(d_in, d_out, bias)
    x = step_of(40, d_in)
    whole = layer(x)
    for part in (slice(0, 1), slice(39, 40), slice(3, 5), slice(8, 12), slice(0, 16), slice(5, 38)):
        assert torch.equal(layer(x[part]), whole[part])


@pytest.mark.parametrize("d_in, d_out, bias", SIZES)
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33])
@torch.no_grad()
def test_it_equals_the_slow_twin_and_float64(d_in, d_out, bias, rows):
    layer, x = Linear(d_in, d_out, bias), step_of(rows, d_in)
    wide = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    # float32: sums of d_in products of which |x w| < 4 / sqrt(d_in) each, rounded at 2^-24
    bound = 4 * d_in**0.5 * 2**-24
    assert_close(layer(x).double(), wide, atol=bound, rtol=0)
    assert_close(filled_product(x, layer.weight, layer.bias).double(), wide, atol=bound, rtol=0)


@torch.no_grad()
def test_large_matrices_are_packed_where_the_trial_holds():
    large, small, wide = Linear(256, 256), Linear(64, 64), Linear(256, 256).double()
    held = product.hold([], [large])
    if product.PACKS:
        made = torch.ops.mkldnn._reorder_linear_weight(large.weight.detach())
        assert held.packed == (product.fewest(product.packed_product, made) == 1)
    for layer in (small, wide):
        held = product.hold([], [layer])
        assert not held.packed and held.rows in (1, 4, 8, 16)


@torch.no_grad()
def test_where_the_trial_fails_rows_are_filled_up_to_16(monkeypatch):
    monkeypatch.setattr(product, "fewest", lambda product, weight: 16)
    layer, x = Linear(256, 256), step_of(3, 256)
    assert torch.equal(layer(x), filled_product(x, layer.weight, layer.bias))
    assert not layer.one.held.packed and layer.one.held.rows == 16


@pytest.mark.skipif(not product.PACKS, reason="this torch has no oneDNN")
@torch.no_grad()
def test_packed_weights_leave_memory_for_others(monkeypatch):
    before, layer = product._bytes[0], Linear(256, 256)
    layer(step_of(1, 256))
    assert product._bytes[0] == before + 256 * 256 * 4
    monkeypatch.setattr(product, "memory", lambda: (before + 256 * 256 * 4) / product.MOST)
    other = Linear(256, 256)
    other(step_of(1, 256))
    assert layer.one.held.packed and not other.one.held.packed
    del layer
    assert product._bytes[0] == before
    other.forget()
    other(step_of(1, 256))
    assert other.one.held.packed


def test_the_trial_finds_a_product_whose_bits_depend_on_the_rows():
    def unsteady(least):
        def multiply(x, weight, bias):
            y = F.linear(x.double(), weight.double()).float()
            return y if len(x) >= least else y * (1 + 2**-23)

        multiply.__name__ = f"unsteady below {least}"
        return multiply

    weight = torch.randn(8, 8)
    found = [product.fewest(unsteady(n), weight) for n in (1, 2, 4, 5, 8, 9, 16)]
    assert found == [1, 4, 4, 8, 8, 16, 16]
    # a row alone passes the trial of half types and fails later
    assert product.fewest(unsteady(1), weight.bfloat16()) == 4


@pytest.mark.parametrize("width", [32, 256])
def test_changed_weights_are_seen(width):
    layer, x = Linear(width, width), step_of(1, width)

    def fresh():
        return filled_product(x, layer.weight.detach().clone(), layer.bias.detach().clone())

    with torch.inference_mode():
        layer(x)

    def learned():
        layer(x).sum().backward()  # torch's fused AdamW changes weights without a word
        torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True).step()

    def in_silence():
        layer.weight.data = torch.full_like(layer.weight, 0.5)

    other = Linear(width, width)
    for change in (
        learned,
        lambda: layer.load_state_dict(other.state_dict()),
        lambda: setattr(layer, "weight", torch.nn.Parameter(torch.zeros(width, width))),
        in_silence,
        lambda: layer.bias.detach().fill_(3.0),
    ):
        change()
        with torch.inference_mode():
            # float32, two kernels: sums of `width` products below 2, rounded at 2^-24
            assert_close(layer(x), fresh(), atol=width * 2 * 2**-24, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "transformer"])
def test_a_net_that_learns_between_two_answers_answers_anew(family):
    torch.manual_seed(0)
    values = dict(family=family, vocab_size=600, d_model=128, n_heads=4, d_ff=512)
    net = build(configure(values)).eval()
    engine, source = Engine(net, SearchConfig(max_new_tokens=5)), [7, 8, 9]
    engine([source])
    ids = torch.tensor([source])
    keep = torch.ones_like(ids, dtype=torch.bool)
    found = net.loss_inputs(Batch(ids, keep, ids, keep))  # still in eval(): no dropout, no train()
    F.cross_entropy(F.linear(found.states, found.weight), found.labels).backward()
    torch.optim.AdamW(net.parameters(), lr=0.05, fused=True).step()
    assert engine([source]) == Engine(copy.deepcopy(net), engine.config)([source])


def test_train_and_eval_forget():
    attn, x = Attention(AttentionConfig(d_model=64, n_heads=4)), step_of(1, 64)
    for mode in (True, False):
        with torch.no_grad():
            attn.o(x), attn.of_one(x)
        assert attn.own.held is not None and attn.o.one.held is not None
        attn.train(mode)
        assert attn.own.held is None and attn.o.one.held is None


def test_copies_begin_empty_and_a_module_travels_without_it():
    layer, x = Linear(256, 256), step_of(1, 256)
    with torch.no_grad():
        layer(x)
    assert layer.one.held is not None and set(layer.state_dict()) == {"weight", "bias"}
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.one.held is None
        with torch.no_grad():
            assert torch.equal(copied(x), layer(x))


@torch.no_grad()
def test_other_precisions_and_inference_weights_are_filled_up():
    x = step_of(3, 256)
    half = Linear(256, 256).bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    wide = Linear(256, 256).double()
    assert torch.equal(wide(x.double()), filled_product(x.double(), wide.weight, wide.bias))
    with torch.inference_mode():
        made = Linear(256, 256)
        assert torch.equal(made(x), filled_product(x, made.weight, made.bias))
        both = Step().product(x, made, made)
        assert torch.equal(both, torch.cat([made(x)] * 2, -1))
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(256, 256)(x).dtype == torch.bfloat16


def test_learning_and_whole_texts_go_the_plain_way():
    layer = Linear(256, 256)
    y = layer(step_of(2, 256))
    assert y.requires_grad and layer.one.held is None
    with torch.no_grad():
        layer(torch.randn(2, 3, 256))
    assert layer.one.held is None


@pytest.mark.parametrize("shared", [4, 2, 1])
@torch.no_grad()
def test_one_product_for_q_k_and_v_equals_three(shared):
    attn = Attention(AttentionConfig(d_model=64, n_heads=4, n_kv_heads=shared, qk_norm=1e-6))
    x = step_of(5, 64)
    q, k, v = attn.of_one(x)
    # float32, widths of 64: the rounding of sums of 64 products below 1
    assert_close(q, attn.queries(x), atol=1e-6, rtol=1e-6)
    for one, other in zip((k, v), attn.keys(x), strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-6)


ODD = [
    dict(family="gpt2", d_model=64, n_heads=4, n_layers=2, d_ff=100),
    dict(family="llama", d_model=60, n_heads=6, n_kv_heads=2, n_layers=2, d_ff=513),
    dict(family="llama", d_model=256, n_heads=8, n_layers=1, d_ff=688),
    dict(family="transformer", d_model=72, n_heads=4, encoder_layers=1, decoder_layers=2, d_ff=300,
         activation="gelu", norm="rms"),
    dict(family="transformer", d_model=256, n_heads=8, encoder_layers=1, decoder_layers=1, d_ff=512,
         gated=True, activation="silu", positions="alibi", n_kv_heads=1),
]  # fmt: skip


@pytest.mark.parametrize("values", ODD, ids=lambda v: f"{v['family']}-{v['d_model']}-{v['d_ff']}")
@pytest.mark.parametrize("beam", [1, 3])
def test_odd_widths_alone_or_in_any_batch_bit_for_bit(values, beam):
    torch.manual_seed(0)
    net = build(configure({"vocab_size": 1003} | values)).eval()
    rng = torch.Generator().manual_seed(1)
    lengths = (1, 2, 3, 7, 15, 16, 17, 33, 65, 40, 5)
    sources = [torch.randint(4, 1003, (n,), generator=rng).tolist() for n in lengths]
    engine = Engine(net, SearchConfig(beam=beam, max_new_tokens=9))
    assert [engine([s])[0] for s in sources] == engine(sources)
