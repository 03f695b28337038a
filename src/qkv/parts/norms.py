"""Norms: (B, T, C) -> (B, T, C), each token on its own but for the batch norm."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shapes import States

Norm = Literal["layer", "rms", "batch"]


class BatchNorm(nn.Module):
    """Normalises each channel over the batch (Ioffe & Szegedy 2015): for comparison, padding is counted."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model, eps=eps)

    def forward(self, x: States) -> States:
        y: Tensor = self.norm(x.flatten(0, 1)).view_as(x)
        return y


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · g, Zhang & Sennrich 2019, eq. 4; g follows x into half precision."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def forward(self, x: States) -> States:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def make_norm(kind: Norm, d_model: int, eps: float, bias: bool) -> nn.Module:
    if kind == "rms":
        return RMSNorm(d_model, eps)
    return BatchNorm(d_model, eps) if kind == "batch" else nn.LayerNorm(d_model, eps=eps, bias=bias)
