"""Where a token stands.  Absolute positions are added to embeddings; relative ones act inside attention.

sinusoid, learned   added to x             Vaswani et al. 2017, section 3.5; Gehring et al. 2017
Rotary              turns q and k          Su et al. 2021, eq. 34
Alibi               a bias on the scores   Press et al. 2022, section 3
Buckets             a learned bias         Raffel et al. 2019, section 2.1"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..shapes import Bias, Heads

Turn = tuple[Tensor, Tensor]  # cosines and sines, each (1 or B, 1, T, D/2)


def sinusoid(n: int, d_model: int, *, halves: bool = False) -> Tensor:
    """PE[p, 2i] = sin(p / 10000^(2i/C)), PE[p, 2i+1] = cos(the same); (n, C) float32.

    halves: all sines first, then all cosines."""
    i = torch.arange(0, d_model, 2, dtype=torch.float64)
    angle = torch.arange(n)[:, None] / 10_000.0 ** (i / d_model)
    sines, cosines = angle.sin(), angle.cos()[:, : d_model // 2]
    if halves:
        return torch.cat([sines, cosines], 1).float()
    table = torch.empty(n, d_model)
    table[:, 0::2], table[:, 1::2] = sines, cosines
    return table


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Turns the pair (x_i, x_{i+D/2}) by position · speed_i, so that q·k depends on the distance only.

    speed_i = base^(-2i/D), divided by `factor` where a longer context is wanted: all of them (linear; Chen et al. 2023,
    section 3), or the slow ones only (llama3: those that turn less than `low` times in `original` positions, and a
    part of those between `low` and `high`)."""

    base: float = 10_000.0
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192

    def __post_init__(self) -> None:
        if not (self.base > 0 and self.factor > 0 and self.high > self.low and self.original > 0):
            raise ConfigError(
                f"rotary positions need base, factor, original > 0 and high > low (got {self})",
                fix="try base=10000, factor=1",
            )

    def speeds(self, d_head: int, device: torch.device) -> Tensor:
        """(D/2) float32, in the order of operations that published models were trained with."""
        i = torch.arange(0, d_head, 2, dtype=torch.int64, device=device).float()
        speed = 1.0 / self.base ** (i / d_head)
        if self.scaling == "none":
            return speed
        if self.scaling == "linear":
            return speed / self.factor
        length = 2 * math.pi / speed  # of one full turn
        share = (self.original / length - self.low) / (self.high - self.low)
        between = (1 - share) * speed / self.factor + share * speed
        slow, fast = length > self.original / self.low, length < self.original / self.high
        return torch.where(slow, speed / self.factor, torch.where(fast, speed, between))

    def turn(self, positions: Tensor, d_head: int, dtype: torch.dtype) -> Turn:
        """positions (T) or (B, T) -> what `rotate` turns by."""
        angle = positions[..., None].float() * self.speeds(d_head, positions.device)
        angle = angle[:, None] if angle.dim() == 3 else angle[None, None]
        return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Heads, turn: Turn) -> Heads:
    """(a, b) -> (a cos - b sin, b cos + a sin) for x = [a, b]: (B, H, T, D)."""
    (cos, sin), (a, b) = turn, x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


@dataclass(frozen=True)
class Alibi:
    """-slope_h · |i - j|, slopes 2^(-8h/H) for h = 1 … H."""

    def bias(self, n_heads: int, queries: Tensor, n_keys: int) -> Bias:
        """queries (T) or (B, T) -> (1 or B, H, T, S)."""
        slopes = 2.0 ** (-8.0 * torch.arange(1, n_heads + 1, device=queries.device) / n_heads)
        return -slopes[:, None, None] * apart(queries, n_keys).abs()[:, None]


@dataclass(frozen=True)
class Buckets:
    """A learned number per head and distance; far distances share a bucket.  One table for all layers of a stack."""

    n: int = 32
    far: int = 128  # from here on, the last bucket

    def __post_init__(self) -> None:
        if self.n < 4 or self.n % 2 or self.far <= self.n // 2:
            raise ConfigError(
                f"{self.n} buckets up to distance {self.far}: an even number from 4, far > n / 2",
                fix="try n=32, far=128",
            )


class BucketBias(nn.Module):
    """Relative position bias shared by all layers (Raffel et al. 2019, section 2.1): (1 or B, H, T, S)."""

    def __init__(self, config: Buckets, n_heads: int, *, causal: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.n, n_heads)
        self.config, self.causal = config, causal

    def forward(self, queries: Tensor, n_keys: int) -> Bias:
        buckets = bucket(-apart(queries, n_keys), self.config, both_ways=not self.causal)
        bias: Bias = self.table(buckets).movedim(-1, 1)  # (1 or B, T, S, H) -> (1 or B, H, T, S)
        return bias


def bucket(ahead: Tensor, config: Buckets, *, both_ways: bool) -> Tensor:
    """Bucket of a key that stands `ahead` tokens ahead of its query: half of them exact, the rest logarithmic.

    both_ways: keys ahead have a half of the buckets to themselves; otherwise they share the bucket of distance 0."""
    n, offset = config.n, torch.zeros_like(ahead)
    if both_ways:
        n //= 2
        offset, distance = torch.where(ahead > 0, n, 0), ahead.abs()
    else:
        distance = (-ahead).clamp(min=0)
    exact = n // 2
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(config.far / exact)
    log = exact + (ratio * (n - exact)).long()
    return offset + torch.where(distance < exact, distance, log.clamp(max=n - 1))


def apart(queries: Tensor, n_keys: int) -> Tensor:
    """i - j: queries (T) or (B, T) -> (1 or B, T, S)."""
    i = queries if queries.dim() == 2 else queries[None]
    return i[:, :, None] - torch.arange(n_keys, device=queries.device)
