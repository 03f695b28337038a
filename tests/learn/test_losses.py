"""The token loss equals its definition, in value and gradient, in whatever pieces it is computed."""

import pytest
import torch
from torch.testing import assert_close

from qkv.learn import losses
from qkv.learn.losses import token_loss, token_loss_whole
from qkv.models.interface import Predictions


def made(n=50, c=5, v=11, bias=True, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(*shape, generator=rng, dtype=dtype).requires_grad_()

    labels = torch.randint(v, (n,), generator=rng)
    return Predictions(leaf(n, c), leaf(v, c), leaf(v) if bias else None, labels)


def leaves(p):
    return [x for x in (p.states, p.weight, p.bias) if x is not None]


@pytest.mark.parametrize("piece", [1 << 22, 11 * 16, 11 * 17, 1], ids="piece={}".format)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pieces_equal_the_whole(monkeypatch, piece, bias, smoothing):
    monkeypatch.setattr(losses, "PIECE", piece)
    p = made(bias=bias)
    ours, whole = token_loss(p, smoothing), token_loss_whole(p, smoothing)
    assert ours.tokens == whole.tokens == 50
    assert_close(ours.smoothed, whole.smoothed, atol=0, rtol=1e-12)  # float64 rounding of 50 sums
    assert_close(ours.nll, whole.nll, atol=0, rtol=1e-12)
    a = torch.autograd.grad(ours.smoothed * 0.3, leaves(p))
    b = torch.autograd.grad(whole.smoothed * 0.3, leaves(p))
    for mine, theirs in zip(a, b, strict=True):
        assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_is_that_of_finite_differences(monkeypatch, bias, smoothing):
    monkeypatch.setattr(losses, "PIECE", 1)  # pieces of 16 rows: 20 rows are two pieces
    p = made(n=20, c=3, v=5, bias=bias)

    def loss(states, weight, *bias):
        q = Predictions(states, weight, bias[0] if bias else None, p.labels)
        return token_loss(q, smoothing).smoothed

    assert torch.autograd.gradcheck(loss, leaves(p))


def test_without_smoothing_the_loss_is_the_likelihood_and_with_it_the_likelihood_stays():
    p = made()
    plain, smooth = token_loss(p), token_loss(p, 0.1)
    assert_close(plain.smoothed, plain.nll, atol=0, rtol=1e-12)
    assert torch.equal(plain.nll, smooth.nll)
    assert not torch.equal(plain.smoothed, smooth.smoothed)
    assert not smooth.nll.requires_grad


@pytest.mark.parametrize("n", [0, 1])
def test_no_token_and_one_token(n):
    p = made(n=n)
    ours, whole = token_loss(p, 0.1), token_loss_whole(p, 0.1)
    assert_close(ours.smoothed, whole.smoothed, atol=1e-12, rtol=1e-12)
    for g, x in zip(torch.autograd.grad(ours.smoothed, leaves(p)), leaves(p), strict=True):
        assert g.shape == x.shape and bool(g.isfinite().all())
        assert n or not g.any()


def test_a_sum_of_parts_equals_one_batch():
    whole = made(n=48)
    a = torch.autograd.grad(token_loss(whole, 0.1).smoothed, leaves(whole))
    for k in (2, 3, 16):
        parts = [
            Predictions(s, whole.weight, whole.bias, y)
            for s, y in zip(whole.states.split(48 // k), whole.labels.split(48 // k), strict=True)
        ]
        total = torch.stack([token_loss(p, 0.1).smoothed for p in parts]).sum()
        b = torch.autograd.grad(total, leaves(whole))
        for mine, theirs in zip(a, b, strict=True):
            assert_close(mine, theirs, atol=1e-13, rtol=1e-13)


def test_huge_and_sure_logits_give_finite_numbers():
    p = Predictions(
        torch.tensor([[1e4], [-1e4]], requires_grad=True),
        torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True),
        None,
        torch.tensor([0, 0]),
    )
    loss = token_loss(p, 0.1)
    assert_close(loss.nll, torch.tensor(2e4))  # 0 for the sure row, 2 · 10⁴ for the sure mistake
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.smoothed, leaves(p)))


def test_bf16_states_are_summed_in_fp32():
    p = made(n=300, c=8, v=50, dtype=torch.float32)
    half = Predictions(p.states.bfloat16(), p.weight, p.bias, p.labels)
    ours, exact = token_loss(half, 0.1), token_loss_whole(p, 0.1)
    assert ours.nll.dtype == torch.float32
    assert_close(ours.smoothed, exact.smoothed, atol=0, rtol=4e-3)  # bf16 keeps 8 bits a product
    ours.smoothed.backward()
    assert p.weight.grad.dtype == torch.float32
