"""Positions, dropout, recurrent cells, blocks: each against its equation or torch's own."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from qkv.errors import ConfigError
from qkv.parts.block import ACTIVATIONS, Stack, StackConfig, elementwise
from qkv.parts.cache import KV
from qkv.parts.dropout import dropout, noise
from qkv.parts.embed import Embed, EmbedConfig
from qkv.parts.positions import Alibi, Buckets, Rotary, rotate, sinusoid
from qkv.parts.recurrent import Recurrent, in_sixteens


def test_sinusoid_is_the_papers_equation():
    table = sinusoid(7, 6).double()
    for p in range(7):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert table[p, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[p, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_rotary_scores_depend_on_distance_only():
    q, k = torch.randn(1, 1, 1, 8).double(), torch.randn(1, 1, 1, 8).double()

    def turned(x, i):
        return rotate(x, Rotary().turn(torch.tensor([i]), 8, x.dtype))

    at = [
        (turned(q, i) @ turned(k, j).transpose(-1, -2)).item()
        for i, j in ((3, 1), (10, 8), (102, 100))
    ]
    assert at[0] == pytest.approx(at[1], abs=1e-5) and at[0] == pytest.approx(at[2], abs=1e-4)


def test_alibi_slopes_and_distances():
    bias = Alibi().bias(8, torch.arange(3), 3)
    assert bias.shape == (1, 8, 3, 3)
    assert_close(bias[0, 0], -0.5 * torch.tensor([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]]))
    assert_close(bias[0, 7, 2, 0], torch.tensor(-2.0 / 256))


def test_dropout_is_a_pure_function_of_its_key():
    x = torch.ones(100, 100)

    def draw(*key):
        with noise(*key):
            return dropout(x, 0.3), dropout(x, 0.3)

    (a, b), (c, d) = draw(1, 2), draw(1, 2)
    assert torch.equal(a, c) and torch.equal(b, d)
    assert not torch.equal(a, b) and not torch.equal(a, draw(1, 3)[0])


def test_dropout_keeps_the_mean_and_its_gradient_is_its_mask():
    x = torch.ones(1000, 1000, requires_grad=True)
    with noise(5):
        y = dropout(x, 0.3)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    values = y.detach().unique()
    assert values.tolist() == pytest.approx([0, 256 / (256 - 77)])
    # the mean of 1e6 draws of variance 0.43 lies within 5 standard errors of 1
    assert abs(y.detach().mean().item() - 1) < 5 * math.sqrt(0.43 / 1e6)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
def test_recurrent_equals_torchs_packed_sequences(kind, both):
    torch.manual_seed(0)
    ours = Recurrent(kind, 6, 8, 2, bidirectional=both).double()
    theirs = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](
        6, 8 // (1 + both), 2, bidirectional=both, batch_first=True
    ).double()
    with torch.no_grad():
        for n, layer in enumerate(ours.layers):
            for way, cell in enumerate(layer):
                tail = f"l{n}" + "_reverse" * way
                getattr(theirs, f"weight_ih_{tail}").copy_(cell.enter.weight)
                getattr(theirs, f"weight_hh_{tail}").copy_(cell.again.weight)
                getattr(theirs, f"bias_ih_{tail}").copy_(cell.enter.bias)
                again = cell.again.bias if cell.again.bias is not None else torch.zeros(1)
                getattr(theirs, f"bias_hh_{tail}").copy_(again.expand_as(cell.enter.bias))
    x, lengths = torch.randn(3, 5, 6, dtype=torch.float64), [5, 3, 1]
    keep = torch.arange(5) < torch.tensor(lengths)[:, None]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    want, last = theirs(packed)
    want, _ = torch.nn.utils.rnn.pad_packed_sequence(want, batch_first=True)
    last = last[0] if kind == "lstm" else last
    states, end = ours(x, keep)
    assert_close(states, want, atol=1e-14, rtol=0)
    top = torch.cat([last[-2], last[-1]], -1) if both else last[-1]
    assert_close(end, top, atol=1e-14, rtol=0)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_recurrent_gradients_equal_finite_differences(kind):
    layer = Recurrent(kind, 3, 4, 1, bidirectional=True).double()
    keep = torch.tensor([[True, True, True], [True, False, False]])
    x = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: layer(x, keep), (x,))


def test_in_sixteens_gives_the_same_rows():
    layer = Recurrent("gru", 4, 4, 1).eval().double()
    x, keep = torch.randn(5, 3, 4, dtype=torch.float64), torch.ones(5, 3, dtype=torch.bool)
    padded, plain = in_sixteens(layer, x, keep), layer(x, keep)
    assert_close(padded[0], plain[0], atol=1e-15, rtol=0)
    assert padded[1].shape == (5, 4)


STACKS = [
    dict(),
    dict(norm_first=True, final_norm=True),
    dict(norm="rms", gated=True, activation="silu", bias=False),
    dict(relative=Rotary(), causal=True),
    dict(relative=Alibi(), causal=True, windows=(1,)),
    dict(relative=Buckets(8, 16), causal=True, bias=False, norm="rms", scale=1.0),
    dict(relative=Buckets(8, 16)),
    dict(relative=Rotary(scaling="llama3", factor=8.0, original=16), d_head=4, qk_norm=True),
    dict(causal=True, qkv_bias=True, out_bias=False, bias=False),
    dict(d_memory=4, n_kv_heads=1),
    *[dict(activation=a) for a in ACTIVATIONS],
]


@pytest.mark.parametrize("kind", STACKS, ids=str)
def test_stack_gradients_equal_finite_differences(kind):
    torch.manual_seed(0)
    stack = Stack(StackConfig(n_layers=1, d_model=4, n_heads=2, d_ff=6, **kind)).double().eval()
    keep = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    x = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    if kind.get("d_memory"):
        m = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
        seen = torch.tensor([[True, True], [True, False], [False, False]])
        assert gradcheck(lambda x, m: stack(x, keep, memory=m, memory_keep=seen)[keep], (x, m))
    else:
        assert gradcheck(lambda x: stack(x, keep)[keep], (x,))


def test_nan_in_the_padding_stays_there():
    stack = Stack(StackConfig(n_layers=2, d_model=8, n_heads=2, d_ff=8)).eval()
    keep = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.randn(2, 3, 8)
    dirty = x.masked_fill(~keep[..., None], torch.nan)
    with torch.no_grad():
        assert torch.equal(stack(x, keep)[keep], stack(dirty, keep)[keep])


def test_batch_norm_learns_running_statistics():
    stack = Stack(StackConfig(n_layers=1, d_model=4, n_heads=2, d_ff=4, norm="batch"))
    x, keep = torch.randn(8, 5, 4) * 3 + 1, torch.ones(8, 5, dtype=torch.bool)
    y = stack(x, keep).flatten(0, 1)
    assert_close(y.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert stack.blocks[0].ff_norm.norm.running_mean.abs().sum() > 0


def test_cache_grows_by_sixteen_and_keeps_what_it_holds():
    kv, like = KV.empty(torch.zeros(1), 2, 1, 3), torch.zeros(2, 1, 1, 3)
    for at in range(40):
        kv = kv.put(like + at, like - at, at)
    assert kv.k.shape == (2, 1, 48, 3)
    assert kv.k[0, 0, :40, 0].tolist() == list(range(40)) and kv.v[1, 0, 39, 2] == -39


def test_long_texts_pass_the_sinusoid_table():
    embed = Embed(EmbedConfig(vocab_size=5, d_model=8)).eval()
    ids = torch.zeros(1, 1100, dtype=torch.long)
    assert_close(embed(ids)[0, 1090] - embed.token.weight[0], sinusoid(1100, 8)[1090])


@pytest.mark.parametrize("bad", [dict(n_layers=0), dict(dropout=1.0), dict(attn_dropout=-0.1)])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        StackConfig(**{**dict(n_layers=1, d_model=4, n_heads=2, d_ff=4), **bad})


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_tanh", "silu"])
@torch.no_grad()
def test_an_activation_gives_a_number_the_same_bits_beside_any_others(name):
    act, x = ACTIVATIONS[name], torch.randn(300, 513) * 3
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            whole = elementwise(act, x)
            assert_close(
                whole, act(x), rtol=1e-6, atol=1e-6
            )  # float32: a few ulp of numbers below 20
            for rows in (1, 2, 3, 16, 33, 64, 100, 128, 200):
                assert torch.equal(elementwise(act, x[:rows]), whole[:rows])
    finally:
        torch.set_num_threads(threads)
