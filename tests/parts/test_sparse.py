"""Kernels that recognise patterns, against the dense definition."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.errors import ConfigError, UsageError
from qkv.parts import kernels, plan
from qkv.parts.attention import Attention, AttentionConfig
from qkv.parts.dropout import Pieces, noise
from qkv.parts.favor import Favor, Features
from qkv.parts.flex import mask_mod
from qkv.parts.forms import form
from qkv.parts.patterns import Allowed, Blocks, Causal, Dilated, Full, Global, Window, parse
from qkv.parts.plan import Plan, Shape
from qkv.parts.sparse import sparse

RECOGNISED = [
    "window(3)",
    "window(40)",
    "causal & window(5)",
    "window(5) | global(2)",
    "causal & (window(5) | global(3))",
    "(causal & window(2)) | global(40)",
    "dilated(2, 3)",
    "dilated(3, 3) | global(1)",
    "causal & dilated(3, 4)",
    "window(1) | window(3) & dilated(5, 1)",
    "blocks(8)",
    "blocks(8, random=2, last=0)",
    "causal & blocks(8, past=1, last=0)",
    "causal & blocks(8)",
    "blocks(16, near=0, random=1, first=0, last=0) | global(5)",
    "blocks(3, past=1)",
]
UNKNOWN = ["window(3) | dilated(2, 3)", "blocks(4) & window(2)", "global(2)", "full", "causal"]


def planned(allowed: Allowed, dtype: torch.dtype) -> Plan:
    """A plan for all texts, however short."""
    known = form(allowed.pattern)
    shape = Shape.of(known, dtype)
    return Plan(tuple(plan.row(t, known, shape, dtype) for t in allowed.texts), shape, dtype)


def qkv(B, T, dtype=torch.float64, H=2, D=6, grad=True):
    return [torch.randn(B, H, T, D, dtype=dtype).requires_grad_(grad) for _ in range(3)]


def agree(allowed: Allowed, T: int, bound: float, dtype: torch.dtype = torch.float64) -> None:
    """Values and gradients; every row, padding too."""
    x = qkv(len(allowed.keep), T, dtype)
    slow = kernels.dense(*x, allowed, scale=0.3)
    g = torch.randn_like(slow)
    fast = sparse(*x, planned(allowed, dtype), scale=0.3)
    wanted, got = (torch.autograd.grad(y, x, g) for y in (slow, fast))
    for a, b in zip((slow, *wanted), (fast, *got), strict=True):
        torch.testing.assert_close(b, a, atol=bound, rtol=0)


def padded(T: int) -> torch.Tensor:
    """A whole text, one with padding and two holes, one of no token, a short one."""
    keep = torch.arange(T) < torch.tensor([[T], [max(1, T - 17)], [0], [T // 3]])
    keep[1, 7:8], keep[1, 11:16] = False, False
    return keep


@pytest.mark.parametrize("marks", [False, True])
@pytest.mark.parametrize("pattern", RECOGNISED)
@pytest.mark.parametrize("T", [1, 31, 130])
def test_sparse_equals_dense(T, pattern, marks):
    """float64: only rounding differs; 3e-15 measured."""
    torch.manual_seed(T)
    marked = torch.rand(4, T) < 0.06 if marks else None
    agree(Allowed.of(parse(pattern), padded(T), marked=marked), T, 1e-12)


LEAVES = st.one_of(
    st.just(Full()),
    st.just(Causal()),
    st.builds(Window, st.integers(0, 50)),
    st.builds(Global, st.integers(0, 5)),
    st.builds(Dilated, st.integers(0, 9), st.integers(1, 4)),
    st.builds(
        Blocks,
        st.integers(1, 20),
        near=st.integers(0, 2),
        first=st.integers(0, 2),
        last=st.integers(0, 2),
        random=st.integers(0, 3),
        past=st.booleans(),
    ),
)
PATTERNS = st.recursive(
    LEAVES,
    lambda p: st.one_of(st.builds(lambda a, b: a & b, p, p), st.builds(lambda a, b: a | b, p, p)),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(PATTERNS, st.integers(1, 90), st.integers(0, 90), st.booleans(), st.integers(0, 9))
def test_any_pattern_that_is_recognised_is_computed_right(pattern, T, n, marks, seed):
    known = form(pattern)
    if known is None or not known.sparse:
        return
    torch.manual_seed(seed)
    keep = torch.arange(T) < torch.tensor([[T], [min(n, T)]])
    marked = torch.rand(2, T) < 0.1 if marks else None
    agree(Allowed.of(pattern, keep, marked=marked), T, 1e-12)


@settings(max_examples=150, deadline=None)
@given(PATTERNS, st.integers(1, 60))
def test_a_form_says_what_its_pattern_says(pattern, n):
    known = form(pattern)
    if known is None or known.blocks is not None:
        return
    i, j = torch.arange(n)[:, None], torch.arange(n)
    away = i - j
    band = (away <= known.left) & (-away <= known.right) & (away % known.step == 0)
    mask = band | (i < known.first) | (j < known.first)
    assert torch.equal(mask & (j <= i) if known.causal else mask, pattern.mask(n, n))


@pytest.mark.parametrize("pattern", RECOGNISED)
def test_these_are_recognised(pattern):
    assert form(parse(pattern)).sparse


@pytest.mark.parametrize("pattern", UNKNOWN)
def test_these_are_left_to_the_dense_kernel(pattern):
    known = form(parse(pattern))
    assert known is None or not known.sparse


@pytest.mark.parametrize(
    "pattern", ["window(2) | global(1)", "causal & (window(2) | global(2))", "blocks(2, random=1)", "dilated(1, 2)"]
)  # fmt: skip
def test_gradients_equal_finite_differences(pattern):
    torch.manual_seed(0)
    keep = torch.arange(9) < torch.tensor([[9], [5]])
    keep[1, 1] = False
    marked = torch.zeros(2, 9, dtype=torch.bool)
    marked[0, 6] = True
    made = planned(Allowed.of(parse(pattern), keep, marked=marked), torch.float64)
    x = qkv(2, 9, H=1, D=2)
    assert torch.autograd.gradcheck(lambda *x: sparse(*x, made, scale=0.7), x)


def test_rows_that_see_nothing_give_zeros_and_finite_gradients():
    keep = torch.zeros(2, 40, dtype=torch.bool)
    keep[0, 20] = True
    x = qkv(2, 40)
    y = sparse(*x, planned(Allowed.of(Window(2), keep), torch.float64), scale=0.5)
    assert torch.count_nonzero(y[0, :, :18]) == torch.count_nonzero(y[1]) == 0
    assert torch.count_nonzero(y[0, :, 18:23]) > 0
    y.sum().backward()
    assert all(t.grad.isfinite().all() for t in x)


LONG = ["window(20) | global(1)", "causal & window(30)", "blocks(16)", "dilated(4, 3)"]


@pytest.fixture
def no_mask(monkeypatch):
    """Fails where a (T, S) mask is made."""

    def mask(self):
        raise AssertionError("a mask of all pairs")

    monkeypatch.setattr(Allowed, "mask", property(mask))


@pytest.mark.parametrize("pattern", LONG)
@pytest.mark.parametrize("grad", [False, True])
def test_fused_makes_no_mask_of_a_long_text(pattern, grad, no_mask):
    keep = torch.ones(1, 600, dtype=torch.bool)
    with torch.set_grad_enabled(grad):
        y = kernels.fused(*qkv(1, 600, torch.float32, grad=grad), Allowed.of(parse(pattern), keep), scale=0.3)  # fmt: skip
    assert y.isfinite().all()


@pytest.mark.parametrize("pattern", LONG)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_fused_equals_dense_for_long_texts(pattern, dtype, bound):
    """float32: 4e-7 measured.  bf16 inputs: our sums are in float32, the twin's weights in bf16 (2^-8)."""
    torch.manual_seed(0)
    keep = torch.arange(512) < torch.tensor([[512], [77], [300]])
    allowed = Allowed.of(parse(pattern), keep)
    x = qkv(3, 512, dtype, grad=False)
    want = kernels.dense(*x, allowed, scale=0.3)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            got = kernels.fused(*x, allowed, scale=0.3)
        torch.testing.assert_close(got.float(), want.float(), atol=bound, rtol=0)


@pytest.mark.parametrize("pattern", LONG)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_change_no_bit(pattern, dtype, D=6):
    """Law 2 on both sides of where the dense kernel ends: alone, padded to sixteens, and beside longer texts."""
    torch.manual_seed(0)
    lengths = [700, 30, 257, 480, 256, 401, 640]
    marked = torch.rand(7, 704) < 0.004
    keep = torch.arange(704) < torch.tensor(lengths)[:, None]
    x = qkv(7, 704, dtype, D=D, grad=False)
    with torch.no_grad():
        together = kernels.fused(*x, Allowed.of(parse(pattern), keep, marked=marked), scale=0.4)
        for i, n in enumerate(lengths):
            S = -(-n // 16) * 16
            one = Allowed.of(parse(pattern), keep[i : i + 1, :S], marked=marked[i : i + 1, :S])
            alone = kernels.fused(*(t[i : i + 1, :, :S] for t in x), one, scale=0.4)
            assert torch.equal(alone[0, :, :n], together[i, :, :n])


@pytest.fixture
def multiplying_bf16(monkeypatch):
    """Products of bf16 texts in bf16, whether this processor has them or not."""
    monkeypatch.setattr("qkv.parts.hardware.has_bf16", lambda device: True)


@pytest.mark.parametrize("pattern", [*LONG, "causal & blocks(16, past=1, last=0)"])
def test_products_in_bf16(pattern, multiplying_bf16):
    """Against the definition in float64 of the same numbers, whole tensors: scores, weights and their gradients are rounded
    to 2^-9 of their size (0.28 to 0.48 % measured), what is added up is not."""
    torch.manual_seed(0)
    keep = torch.arange(512) < torch.tensor([[512], [77], [300]])
    marked = torch.rand(3, 512) < 0.01
    allowed = Allowed.of(parse(pattern), keep, marked=marked)
    x = qkv(3, 512, torch.bfloat16, D=64)
    wide = [t.detach().double().requires_grad_() for t in x]
    slow = kernels.dense(*wide, allowed, scale=0.125)
    g = torch.randn_like(slow)
    fast = sparse(*x, planned(allowed, torch.float32), scale=0.125)
    assert fast.dtype == torch.float32
    wanted = torch.autograd.grad(slow, wide, g)
    got = torch.autograd.grad(fast, x, g.float())
    for a, b in zip((slow, *wanted), (fast, *got), strict=True):
        assert (b.detach().double() - a.detach()).norm() < 0.01 * a.detach().norm()


@pytest.mark.parametrize("pattern", LONG)
def test_neighbours_change_no_bit_of_products_in_bf16(pattern, multiplying_bf16):
    test_neighbours_change_no_bit(pattern, torch.bfloat16, D=64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("pattern", RECOGNISED)
def test_weights_that_are_kept_are_those_made_again(
    pattern, p, dtype, multiplying_bf16, monkeypatch
):
    """Bit for bit, of texts with padding and holes, and tokens that see all."""
    torch.manual_seed(0)
    T = 130
    allowed = Allowed.of(parse(pattern), padded(T), marked=torch.rand(4, T) < 0.06)
    made = planned(allowed, torch.float32)
    x, g = qkv(4, T, dtype), None
    found = []
    for kept in (1 << 25, 0):
        monkeypatch.setattr("qkv.parts.sparse.KEPT", kept)
        y = sparse(*x, made, scale=0.3, drop=Pieces(p, 7) if p else None)
        g = torch.randn_like(y) if g is None else g
        held = y.grad_fn.saved_tensors
        found.append((y, *torch.autograd.grad(y, x, g)))
        assert len(held) == (3 + 4 if kept else 3)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("features", [None, Features(count=8)], ids=["window", "performer"])
def test_a_second_derivative_is_an_error(features):
    """However it is asked for: what it would lack is not seen in the number."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 600, 8, dtype=torch.float64)
    w = torch.randn(8, 8, dtype=torch.float64, requires_grad=True)
    allowed = Allowed.of(Window(8) if features is None else Full(), torch.ones(1, 600, dtype=torch.bool))  # fmt: skip
    if features is None:
        attend = kernels.fused
    else:
        attend = Favor(features, 8).double()
    y = attend(x @ w, x @ w, x @ w, allowed, scale=0.3)
    for loss in (y.square().mean() + w.square().sum(), y.square().mean()):
        (g,) = torch.autograd.grad(loss, w, create_graph=True)
        for outer in (g.square().sum(), g.square().sum() + 0 * w.sum()):
            with pytest.raises(UsageError, match="no second derivative"):
                torch.autograd.grad(outer, w, retain_graph=True)
        with pytest.raises(UsageError, match="no second derivative"):
            g.sum().backward(retain_graph=True)


def test_nothing_as_large_as_a_window_is_made_for_short_texts(monkeypatch):
    """A number that means "no limit" is a window like others; beyond any text it is refused."""
    monkeypatch.setattr(Shape, "of", lambda *x: pytest.fail("tables of a plan that is not used"))
    x = qkv(1, 600, torch.float32)
    for text in ("window(1000000)", "blocks(100000)", "dilated(100000, 100000)"):
        allowed = Allowed.of(parse(text), torch.ones(1, 600, dtype=torch.bool))
        y = kernels.fused(*x, allowed, scale=0.3)
        assert allowed.plan(torch.float32, split=False) is None and y.shape == x[0].shape
    with pytest.raises(ConfigError, match="beyond any text"):
        parse("dilated(999999999, 999999999)")


@pytest.mark.parametrize("autocast", [False, True])
def test_autocast_does_not_reach_into_the_kernel(autocast):
    """Sums stay in float32 under mixed precision, as in the dense kernel."""
    torch.manual_seed(0)
    allowed = Allowed.of(Window(20), torch.ones(1, 600, dtype=torch.bool))
    x = qkv(1, 600, torch.float32)
    want = kernels.dense(*(t.detach() for t in x), allowed, scale=0.3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = kernels.fused(*x, allowed, scale=0.3)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), want, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "pattern", ["window(20) | global(2)", "blocks(16)", "causal & dilated(4, 3)"]
)
def test_dropped_weights_are_zero_or_larger_and_the_same_on_the_way_back(pattern):
    """With v = 1 the answers are the weights: w / (1 - p) or 0, about p of them 0.  The gradient of v tells that the mask of
    the way back is the same one: dv = (m · p)ᵀ g."""
    torch.manual_seed(0)
    T, p = 90, 0.25
    allowed = Allowed.of(parse(pattern), torch.ones(1, T, dtype=torch.bool))
    q, k = (torch.randn(1, 2, T, T, dtype=torch.float64, requires_grad=True) for _ in range(2))
    v = torch.eye(T, dtype=torch.float64).expand(1, 2, T, T).clone().requires_grad_()
    made, drop = planned(allowed, torch.float64), Pieces(p, 7)
    whole, weights = (sparse(q, k, v, made, scale=0.1, drop=d) for d in (None, drop))
    kept = weights / whole
    seen = allowed.dense()[0, 0].expand(1, 2, T, T)
    shares = kept[seen].detach()
    assert bool(((shares - 1 / (1 - p)).abs().min(shares.abs()) < 1e-9).all())
    n = len(shares)
    assert abs(float((shares == 0).double().mean()) - p) < 5 * (p * (1 - p) / n) ** 0.5
    g = torch.randn_like(weights)
    mask = (kept.detach() > 0.5).double() / (1 - p)
    got = torch.autograd.grad(weights, (q, k, v), g)
    scores = (q @ k.transpose(2, 3) * 0.1).masked_fill(~seen, -torch.inf)
    twin = (scores.softmax(-1) * mask) @ v
    for a, b in zip(torch.autograd.grad(twin, (q, k, v), g), got, strict=True):
        torch.testing.assert_close(b, a, atol=1e-12, rtol=0)


def test_a_layer_drops_weights_of_long_texts_without_a_mask(no_mask):
    """And the masks are the step's noise: drawn again they are the same."""
    torch.manual_seed(0)
    config = AttentionConfig(d_model=16, n_heads=2, dropout=0.1)
    layer, x = Attention(config).train(), torch.randn(1, 600, 16)
    allowed = Allowed.of(Window(20), torch.ones(1, 600, dtype=torch.bool))
    answers = []
    for key in (1, 1, 2):
        with noise(key):
            answers.append(layer(layer.queries(x), *layer.keys(x), allowed))
    assert torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("marks", [False, True])
@pytest.mark.parametrize("pattern", RECOGNISED)
def test_the_mask_of_an_accelerator_is_the_same(pattern, marks):
    """flex_attention asks for single pairs; mapped over all of them the answer is the dense mask."""
    torch.manual_seed(0)
    T, keep = 40, padded(40)
    allowed = Allowed.of(parse(pattern), keep, marked=torch.rand(4, T) < 0.1 if marks else None)
    at = torch.arange
    mod = mask_mod(allowed)
    for axis in (3, 2, 1, 0):  # key, query, head, text
        mod = torch.vmap(mod, in_dims=tuple(0 if a == axis else None for a in range(4)))
    got = mod(at(4), at(1), at(T), at(T))
    assert torch.equal(got, allowed.dense())


@pytest.mark.parametrize("pattern", ["window(20) | global(2)", "blocks(16)", "causal & window(3)"])
def test_flex_attention_gives_the_same_answer(pattern):
    """Its plain form, which runs anywhere: rows that see nothing give zeros there too.  float32, 5e-7 measured."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.manual_seed(0)
    allowed, x = Allowed.of(parse(pattern), padded(130)), qkv(4, 130, torch.float32, grad=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is slow
        y = flex_attention(*x, block_mask=allowed.flexible, scale=0.3)
    torch.testing.assert_close(y, kernels.dense(*x, allowed, scale=0.3), atol=2e-6, rtol=0)
