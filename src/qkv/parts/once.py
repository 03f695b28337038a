"""Gradients that are made by hand, and have no derivative of their own: asked for it, they say so.

torch's `once_differentiable` says it where `backward` is called, and not where `torch.autograd.grad` is: what it leaves in
the graph leads to no input, so that nobody comes past it, and a second derivative lacks a part in silence."""

from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError

Made = tuple[Tensor, ...]


def once(made: Made, *inputs: Tensor) -> Made:
    """The gradients `made` of these inputs; where torch keeps their graph, with an error as their derivative."""
    if not torch.is_grad_enabled():
        return made
    given: Made = Once.apply(len(made), *made, *inputs)  # type: ignore[no-untyped-call]
    return given


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, n: int, *x: Tensor) -> Made:
        return tuple(t.view_as(t) for t in x[:n])

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> None:
        raise UsageError(
            "this attention has no second derivative",
            fix="use a pattern or a length that takes the dense kernel (qkv.parts.kernels.dense has one)",
        )
