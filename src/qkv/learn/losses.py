"""Token losses.  The output layer and the loss are one operation, computed in pieces and over real tokens only."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.interface import Predictions

PIECE = 1 << 24  # bytes of a piece of the logits: about what a shared cache holds


@dataclass(frozen=True)
class TokenLoss:
    """Sums over N tokens; the caller divides by the global count of target tokens (law 11).

    `smoothed` carries the gradient; `nll` is the plain negative log-likelihood in nats; both 0-d float32 or float64."""

    smoothed: Tensor
    nll: Tensor
    tokens: int


def token_loss(p: Predictions, smoothing: float = 0.0) -> TokenLoss:
    """Σ_n (1 - ε) · -log p(y_n) + ε · mean_v -log p(v), Szegedy et al. 2016, section 7.

    Equal to `token_loss_whole`, without ever holding the (N, V) logits."""
    with torch.autocast(p.states.device.type, enabled=False):  # on a GPU it would widen the softmax
        smoothed, nll = _TokenLoss.apply(p.states, p.weight, p.bias, p.labels, smoothing)  # type: ignore[no-untyped-call]
    return TokenLoss(smoothed, nll, p.labels.numel())


def token_loss_whole(p: Predictions, smoothing: float = 0.0) -> TokenLoss:
    """The definition: logits, then torch's cross entropy.  The slow twin."""
    logits = F.linear(p.states, p.weight, p.bias)
    smoothed = F.cross_entropy(logits, p.labels, label_smoothing=smoothing, reduction="sum")
    nll = F.cross_entropy(logits.detach(), p.labels, reduction="sum")
    return TokenLoss(smoothed, nll, p.labels.numel())


class _TokenLoss(torch.autograd.Function):
    """The gradient of softmax cross entropy is softmax - target: it is made while the logits are at hand.

    Over v other than the label the target is ε / V, the same for all: that part of both gradients is one vector, taken
    off at the end instead of from every number."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        (N, _), V = states.shape, weight.shape[0]
        w, b = weight.detach().to(states.dtype), None if bias is None else bias.detach()
        exact = torch.float64 if states.dtype == torch.float64 else torch.float32
        grad_states = torch.empty_like(states)
        grad_weight = torch.zeros(weight.shape, dtype=exact, device=w.device)
        grad_bias = None if b is None else torch.zeros(V, dtype=exact, device=w.device)
        nll, of_label = (torch.zeros((), dtype=exact, device=w.device) for _ in range(2))
        rows = max(16, PIECE // (V * states.element_size()))
        parts = (torch.split(x, rows) for x in (states.detach(), labels, grad_states))
        for h, y, g in zip(*parts, strict=True):
            z = h @ w.T if b is None else torch.addmm(b.to(h.dtype), h, w.T)
            lost, p = _surprise(z, y[:, None], smoothing, exact)
            nll += lost.sum()
            of_label += z.gather(1, y[:, None]).sum(dtype=exact)
            if grad_bias is not None:
                grad_bias += p.sum(0)
            torch.mm(p, w, out=g)
            grad_weight += p.T @ h
        middle, total = w.mean(0, dtype=exact), states.detach().sum(0, dtype=exact)  # both (C)
        mean = total @ middle if b is None else total @ middle + N * b.mean(dtype=exact)
        smoothed = (1 - smoothing) * nll + smoothing * (nll + of_label - mean)
        if smoothing:
            grad_states -= (smoothing * middle).to(states.dtype)
            grad_weight -= total * (smoothing / V)
            grad_bias = None if grad_bias is None else grad_bias - N * smoothing / V
        ctx.grads = (grad_states, grad_weight.to(weight.dtype), grad_bias)
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias = (None if g is None else g * grad.to(g.dtype) for g in ctx.grads)
        return states, weight, bias, None, None


def _surprise(z: Tensor, y: Tensor, smoothing: float, exact: torch.dtype) -> tuple[Tensor, Tensor]:
    """-log p(y) (n, 1), and softmax(z) (n, V) with p(y) - (1 - ε) in the label's place; y (n, 1).

    What the other pieces hold together, 1 - p(y), is summed rather than subtracted from 1: where the model is sure, half
    precision would leave nothing of it."""
    p, row = torch.softmax(z, 1), torch.arange(len(z), device=z.device)[:, None]
    own = p[row, y].to(exact)
    p[row, y] = 0.0  # scatter_ copies all of p (torch 2.13)
    rest = p.sum(1, keepdim=True).to(exact)
    lost = torch.where(rest < 0.5, -torch.log1p(-rest.clamp(max=0.5)), -own.log())
    if bool((own == 0).any()):  # too small for a number: rare, and the long way
        lost = torch.where(own == 0, z.to(exact).logsumexp(1, keepdim=True) - z[row, y], lost)
    p[row, y] = (smoothing - rest).to(p.dtype)
    return lost, p
