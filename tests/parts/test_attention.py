"""Attention against its definition, torch's own, and finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.errors import ConfigError
from qkv.look.record import record
from qkv.parts import kernels
from qkv.parts.attention import Attention, AttentionConfig, attend, weigh
from qkv.parts.patterns import Allowed, Causal, Full, Window
from qkv.parts.positions import Alibi

PATTERNS = [Full(), Causal(), Window(2), Causal() & Window(1), Causal() | Window(1)]
SCORES = ["scaled", "dot", "cosine", "general", "additive"]


def heads(B=2, H=2, T=5, D=4, dtype=torch.float64, **kw):
    return torch.randn(B, H, T, D, dtype=dtype, **kw)


def keep_of(*lengths, S=5):
    return torch.arange(S) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_fused_equals_the_definition_with_padding_and_empty_rows(pattern, biased):
    q, k, v = (heads(requires_grad=True) for _ in range(3))
    allowed = Allowed.of(pattern, keep_of(4, 0))
    bias = Alibi().bias(2, torch.arange(5), 5).double() if biased else None
    fast = kernels.fused(q, k, v, allowed, bias=bias, scale=0.5)
    slow = kernels.dense(q, k, v, allowed, bias=bias, scale=0.5)
    assert_close(fast, slow, atol=1e-14, rtol=0)  # float64, five keys: a few ulp
    g = torch.randn_like(fast)
    for a, b in zip(
        torch.autograd.grad(fast, (q, k, v), g),
        torch.autograd.grad(slow, (q, k, v), g),
        strict=True,
    ):
        assert_close(a, b, atol=1e-13, rtol=0)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 0.03), (torch.float64, 1e-13)])
def test_short_equals_the_definition_with_padding_and_empty_rows(pattern, biased, dtype, bound):
    allowed = Allowed.of(pattern, keep_of(4, 0))
    if dtype == torch.float64:  # its mask is in float32, which holds 0 and -inf exactly
        bound = 1e-7 if biased else bound
    q, k, v = (heads(dtype=dtype, requires_grad=True) for _ in range(3))
    bias = Alibi().bias(2, torch.arange(5), 5) if biased else None
    fast = kernels.short(q, k, v, allowed, bias=bias, scale=0.5)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    slow = kernels.dense(*wide, allowed, bias=bias, scale=0.5)
    assert not fast[1].any()
    assert (fast - slow).abs().max() <= bound  # bf16: 8 bits, a few roundings of numbers near 1
    g = torch.randn_like(slow)
    for a, b in zip(
        torch.autograd.grad(fast, (q, k, v), g.to(dtype)),
        torch.autograd.grad(slow, wide, g),
        strict=True,
    ):
        assert (a - b).abs().max() <= 4 * bound and a.isfinite().all()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_one_query_equals_the_definition(pattern):
    q, k, v = heads(T=1), heads(), heads()
    for at in range(5):
        allowed = Allowed(pattern, keep_of(3, 0), torch.tensor([at]))
        with torch.no_grad():
            fast = kernels.one_query(q, k, v, allowed, scale=0.5)
            assert_close(fast, kernels.dense(q, k, v, allowed, scale=0.5), atol=1e-14, rtol=0)


@pytest.mark.parametrize("kernel", [kernels.fused, kernels.dense])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_gradients_equal_finite_differences(kernel, pattern):
    q, k, v = (heads(B=2, H=1, T=3, D=2, requires_grad=True) for _ in range(3))
    allowed = Allowed.of(pattern, keep_of(3, 0, S=3))
    assert gradcheck(lambda *x: kernel(*x, allowed, scale=0.7), (q, k, v))


def test_a_row_that_sees_nothing_gives_zeros_and_finite_gradients():
    q, k, v = (heads(requires_grad=True) for _ in range(3))
    y = attend(q, k, v, Allowed.of(Full(), keep_of(5, 0)), scale=1.0)
    y.sum().backward()
    assert (y[1] == 0).all() and (y[0] != 0).all()
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    assert (k.grad[1] == 0).all() and (v.grad[1] == 0).all()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_patterns_are_their_predicate(T, S, radius, causal):
    pattern = Causal() & Window(radius) if causal else Window(radius)
    mask = pattern.mask(T, S)
    for i in range(T):
        for j in range(S):
            assert mask[i, j] == (abs(i - j) <= radius and (j <= i or not causal))


def test_patterns_are_values():
    assert Causal() & Window(2) == Causal() & Window(2) != Causal() & Window(3)
    assert str(Window(2)) == "Window(radius=2)"


def test_masked_keys_hold_nothing_even_nan():
    q, k = heads(), heads()
    scores = kernels.scores(q, k, bias=None, scale=1.0)
    mask = Allowed.of(Full(), keep_of(3, 3)).dense()
    dirty = scores.clone()
    dirty[..., 3:] = torch.nan
    assert torch.equal(kernels.softmax(scores, mask), kernels.softmax(dirty, mask))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n_kv", [1, 2, 4])
def test_attention_gradients_of_every_score(score, n_kv):
    torch.manual_seed(0)
    layer = Attention(AttentionConfig(d_model=8, n_heads=4, n_kv_heads=n_kv, score=score)).double()
    allowed = Allowed.of(Full(), keep_of(3, 2, S=3), 2)
    x = torch.randn(2, 2, 8, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, m: layer(layer.queries(a), *layer.keys(m), allowed), (x, memory))


def test_scaled_attention_equals_torch_multihead_attention():
    torch.manual_seed(0)
    ours = Attention(AttentionConfig(d_model=12, n_heads=3)).double()
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
        theirs.out_proj.weight.copy_(ours.o.weight)
        theirs.out_proj.bias.copy_(ours.o.bias)
    x, keep = torch.randn(2, 5, 12, dtype=torch.float64), keep_of(5, 3)
    want, maps = theirs(x, x, x, key_padding_mask=~keep, average_attn_weights=False)
    with record(ours) as seen:
        got = ours(ours.queries(x), *ours.keys(x), Allowed.of(Full(), keep))
    assert_close(got, want, atol=1e-14, rtol=0)  # float64, one layer
    assert_close(seen[""], maps, atol=1e-14, rtol=0)


def test_grouped_heads_equal_repeated_heads():
    q, k, v = heads(H=4), heads(H=2), heads(H=2)
    allowed = Allowed.of(Causal(), keep_of(5, 4))
    full = [x.repeat_interleave(2, dim=1) for x in (k, v)]
    assert torch.equal(attend(q, k, v, allowed, scale=0.5), attend(q, *full, allowed, scale=0.5))


def test_weights_are_softmax_of_scores_and_rows_sum_to_one():
    q, k = heads(), heads()
    maps = weigh(q, k, Allowed.of(Full(), keep_of(5, 5)), scale=0.5)
    assert_close(maps, F.softmax(q @ k.transpose(-1, -2) * 0.5, -1), atol=1e-15, rtol=0)
    assert_close(maps.sum(-1), torch.ones(2, 2, 5, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    "bad", [dict(d_model=10, n_heads=3), dict(d_model=8, n_heads=4, n_kv_heads=3)]
)
def test_heads_that_do_not_divide_are_refused(bad):
    with pytest.raises(ConfigError, match="heads"):
        AttentionConfig(**bad)


def test_forward_leaves_the_module_as_it_was():
    layer = Attention(AttentionConfig(d_model=8, n_heads=2))
    before = {k: v for k, v in vars(layer).items() if not k.startswith("_")}
    x = torch.randn(1, 3, 8)
    layer(layer.queries(x), *layer.keys(x), Allowed.of(Full(), torch.ones(1, 3, dtype=torch.bool)))
    assert {k: v for k, v in vars(layer).items() if not k.startswith("_")} == before


WAYS = ("whole", "one query", "additive")


def looked(way: str, held: torch.Tensor, length: int, before: int, width: int) -> torch.Tensor:
    """What 16 rows of `length` tokens, held (3, 16, H, S, D), find behind `before` full rows of `width`."""
    H, S, D = held.shape[2:]
    q, k, v = torch.randn(3, before + 16, width, H, D).transpose(2, 3)  # as projections lie
    for x, real in zip((q, k, v), held, strict=True):
        x[before:, :, :S] = real
    keep = torch.ones(before + 16, width, dtype=torch.bool)
    keep[before:] = torch.arange(width) < length
    q = q if way == "whole" else q[:, :, :1]
    allowed = Allowed.of(Full(), keep, q.shape[2])
    if way == "additive":
        torch.manual_seed(0)
        layer = Attention(AttentionConfig(d_model=H * D, n_heads=H, score="additive")).eval()
        return layer(q, k, v, allowed)[before:]
    return attend(q, k, v, allowed, scale=D**-0.5)[before:, :, :length]


@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_neighbours_and_padding_change_no_bit_of_attention(way, threads):
    # lengths around what one sum of 4 vectors holds (AVX2: 32 keys, AVX-512: 64), and one piece of a product (192)
    had = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for length in (20, 47, 90, 180):
            S = -(-length // 16) * 16
            held = torch.randn(3, 16, 4, S, 32)
            alone = looked(way, held, length, 0, S)
            for before, more in ((1, 0), (16, 16), (48, 32), (2, 208)):
                beside = looked(way, held, length, before, S + more)
                assert torch.equal(beside, alone), (length, before, more)
    finally:
        torch.set_num_threads(had)


def test_by_width_equals_the_definition():
    q, k, v = torch.randn(3, 5, 2, 150, 8)
    keep = torch.arange(150) < torch.tensor([150, 149, 3, 0, 80])[:, None]
    allowed = Allowed.of(Causal(), keep)
    bias = torch.randn(1, 2, 150, 150)
    with torch.no_grad():
        fast = kernels.fused(q, k, v, allowed, bias=bias, scale=0.4)
    slow = kernels.dense(q, k, v, allowed, bias=bias, scale=0.4)
    assert_close(fast, slow, atol=2e-6, rtol=0)  # float32 sums of up to 150 keys; 5e-7 measured


def test_a_whole_triangle_is_recognised_and_changes_nothing():
    """float32: the same sums in another order; 1e-6 of numbers near 1 (3e-7 measured)."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 9, 8, requires_grad=True) for _ in range(3))
    whole = Allowed.of(Causal(), torch.ones(2, 9, dtype=torch.bool))
    assert whole.triangle
    got = attend(q, k, v, whole, scale=0.5)
    want = kernels.dense(q, k, v, whole, scale=0.5)
    assert_close(got, want, atol=1e-6, rtol=0)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (got, want)), strict=True
    ):
        assert_close(a, b, atol=1e-5, rtol=0)
    padded = torch.ones(2, 9, dtype=torch.bool)
    padded[0, 8] = False
    group = torch.zeros(2, 9, dtype=torch.long)
    for other in (
        Allowed.of(Causal(), padded),
        Allowed.of(Causal() & Window(3), padded | True),
        Allowed.of(Full(), padded | True),
        Allowed.of(Causal(), padded | True, group=group),
        Allowed(Causal(), padded | True, torch.arange(1, 10)),
        Allowed.of(Causal(), padded | True, 4),
    ):
        assert not other.triangle
