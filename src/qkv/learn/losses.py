"""Token losses.  The output layer and the loss are one operation, computed in pieces and over real tokens only."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.interface import Predictions

PIECE = 1 << 22  # numbers of a piece of the logits: 16 MB in fp32, about what a shared cache holds


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
    smoothed, nll = _TokenLoss.apply(p.states, p.weight, p.bias, p.labels, smoothing)
    return TokenLoss(smoothed, nll, p.labels.numel())


def token_loss_whole(p: Predictions, smoothing: float = 0.0) -> TokenLoss:
    """The definition: logits, then torch's cross entropy.  The slow twin."""
    logits = F.linear(p.states, p.weight, p.bias)
    smoothed = F.cross_entropy(logits, p.labels, label_smoothing=smoothing, reduction="sum")
    nll = F.cross_entropy(logits.detach(), p.labels, reduction="sum")
    return TokenLoss(smoothed, nll, p.labels.numel())


class _TokenLoss(torch.autograd.Function):
    """The gradient of softmax cross entropy is softmax - target: it is made while the logits are at hand."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        (N, C), V = states.shape, weight.shape[0]
        w = weight.detach().to(states.dtype)
        exact = torch.float64 if states.dtype == torch.float64 else torch.float32
        grad_states = torch.empty_like(states)
        grad_weight = torch.zeros(V, C, dtype=exact, device=w.device)
        grad_bias = None if bias is None else torch.zeros(V, dtype=exact, device=w.device)
        smoothed, nll = (torch.zeros((), dtype=exact, device=w.device) for _ in range(2))
        rows = max(16, PIECE // V)
        for h, y, g in zip(
            states.detach().split(rows), labels.split(rows), grad_states.split(rows), strict=True
        ):
            z = (h @ w.T).to(exact)
            z = z if bias is None else z.add_(bias.detach())
            target, mean = z.gather(1, y[:, None]), z.mean(1)
            top = z.amax(1, keepdim=True)
            total = z.sub_(top).exp_().sum(1, keepdim=True)
            lse = total.log().add_(top)
            nll += (lse - target).sum()
            smoothed += (1 - smoothing) * (lse - target).sum()
            smoothed += smoothing * (lse[:, 0] - mean).sum()
            z.div_(total)
            if smoothing:
                z.sub_(smoothing / V)
            z.scatter_add_(1, y[:, None], torch.full_like(target, smoothing - 1))
            if grad_bias is not None:
                grad_bias += z.sum(0)
            z = z.to(states.dtype)
            torch.mm(z, w, out=g)
            grad_weight += z.T @ h
        ctx.grads = (grad_states, grad_weight.to(weight.dtype), grad_bias)
        ctx.mark_non_differentiable(nll)
        return smoothed, nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        states, weight, bias = (None if g is None else g * grad.to(g.dtype) for g in ctx.grads)
        return states, weight, bias, None, None
