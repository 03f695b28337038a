"""Where a token stands.  Absolute positions are added to embeddings; relative ones act inside attention.

sinusoid, learned   added to x             Vaswani et al. 2017, section 3.5; Gehring et al. 2017
rotary              turns q and k          Su et al. 2021, eq. 34
alibi               a bias on the scores   Press et al. 2022, section 3"""

import math

import torch
from torch import Tensor

from ..shapes import Bias, Heads


def sinusoid(n: int, d_model: int) -> Tensor:
    """PE[p, 2i] = sin(p / 10000^(2i/C)), PE[p, 2i+1] = cos(the same); (n, C)."""
    angle = torch.arange(n)[:, None] * torch.exp(
        torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model)
    )
    table = torch.empty(n, d_model)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : d_model // 2]
    return table


def rotate(x: Heads, positions: Tensor, base: float = 10_000.0) -> Heads:
    """Turn each pair (x_i, x_{i+D/2}) by the angle position · base^(-2i/D).

    x (B, H, T, D), positions (T) or (B, T): q·k then depends on the distance only."""
    D = x.shape[-1]
    speed = base ** (-torch.arange(0, D, 2, device=x.device, dtype=torch.float32) / D)
    angle = positions[..., None].float() * speed  # (T, D/2) or (B, T, D/2)
    if angle.dim() == 3:
        angle = angle.unsqueeze(1)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def alibi(n_heads: int, queries: Tensor, n_keys: int) -> Bias:
    """-slope_h · |i - j|: (1 or B, H, T, S), slopes 2^(-8h/H) for h = 1 … H."""
    slopes = 2.0 ** (-8.0 * torch.arange(1, n_heads + 1, device=queries.device) / n_heads)
    i = queries if queries.dim() == 2 else queries[None]
    distance = (i[:, :, None] - torch.arange(n_keys, device=queries.device)).abs()  # (1 or B, T, S)
    return -slopes[:, None, None] * distance[:, None]
