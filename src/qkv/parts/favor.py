"""FAVOR+: softmax attention by positive orthogonal random features (Choromanski et al. 2021).

    exp(q·k) = E φ(q)·φ(k)      φ(x)_i = exp(w_i·x - |x|²/2) / √m      w_i ~ N(0, I)           (lemma 1)

An approximation.  For one pair and m independent w_i its mean squared error is
    exp(|q + k|²) exp(q·k)² (1 - exp(-|q + k|²)) / m                                          (lemma 2)
and w_i that are orthogonal in groups of D make it smaller (theorem 2).  The products φ(q)·φ(k) are unbiased, their
quotient in attention is not, there or here.  What is subtracted for numbers' sake cancels: `linear`."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..shapes import Heads, Keep, Maps
from . import linear
from .exponents import Sums, wide
from .patterns import Allowed, Causal, Full, restarted


@dataclass(frozen=True, kw_only=True)
class Features:
    """How many random features stand for the softmax, and how often they are drawn anew."""

    count: int = 0  # m; 0: D ln D (section 4.1), rounded up to a multiple of 16
    redraw: int = 0  # training steps between two draws; 0: one draw for ever
    seed: int = 0  # of the first draw

    def __post_init__(self) -> None:
        if self.count < 0 or self.redraw < 0 or self.seed < 0:
            raise ConfigError(
                f"features {self.count}, redraw {self.redraw}, seed {self.seed} must not be negative",
                fix="features = 256, redraw = 0",
            )

    def number(self, d_head: int) -> int:
        return self.count or -(-round(d_head * float(np.log(max(d_head, 2)))) // 16) * 16


def draw(m: int, d_head: int, *key: int) -> Tensor:
    """m vectors (m, D) float32, each distributed N(0, I), orthogonal in groups of D; a pure function of the key.

    Directions: rows of uniformly random orthogonal matrices; lengths: those of other normal vectors (section 2.4)."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    groups = []
    for _ in range(-(-m // d_head)):
        q, r = np.linalg.qr(rng.standard_normal((d_head, d_head)))
        groups.append(q.T * np.sign(np.diag(r))[:, None])  # without the sign not uniform
    lengths = np.linalg.norm(rng.standard_normal((m, d_head)), axis=1, keepdims=True)
    return torch.from_numpy((np.concatenate(groups)[:m] * lengths).astype(np.float32))


def estimate(q: Tensor, k: Tensor, w: Tensor) -> Tensor:
    """φ(q)·φ(k), whose mean over draws of w is exp(q·k): q (…, T, D), k (…, S, D), w (m, D) -> (…, T, S)."""
    f, g = ((x @ w.T - x.square().sum(-1, keepdim=True) / 2).exp() for x in (q, k))
    return f @ g.transpose(-1, -2) / w.shape[0]


class Favor(nn.Module):
    """The features of one layer, shared by its heads: a buffer, saved with the weights."""

    features: Tensor

    def __init__(self, config: Features, d_head: int) -> None:
        super().__init__()
        self.config = config
        m = config.number(d_head)
        self.register_buffer("features", draw(m, d_head, config.seed))

    def redraw(self, *key: int) -> None:
        """Other features, a pure function of the key, in place."""
        with torch.no_grad():
            self.features.copy_(draw(*self.features.shape, *key))

    def forward(self, q: Heads, k: Heads, v: Heads, allowed: Allowed, *, scale: float) -> Heads:
        """About softmax(scale · q kᵀ) v over allowed pairs; a row that may look at nothing gives zeros."""
        causal, keep = readable(allowed) == Causal(), allowed.keep
        if allowed.group is None:
            return linear.attend(q, k, v, keep, self.features, scale=scale, causal=causal)
        rows = Documents.of(allowed.group)
        q, k, v = (rows.apart(x) for x in (q, k, v))
        keep = rows.apart(keep[:, None, :, None])[:, 0, :, 0]
        y = linear.attend(q, k, v, keep, self.features, scale=scale, causal=causal)
        return rows.together(y)

    def advance(
        self, q: Heads, k: Heads, v: Heads, keep: Keep, sums: Sums, *, scale: float
    ) -> tuple[Heads, Sums]:
        """The next tokens of a causal sequence."""
        return linear.advance(q, k, v, keep, sums, self.features, scale=scale)

    def weights(self, q: Heads, k: Heads, allowed: Allowed, *, scale: float) -> Maps:
        """The map that `forward` implies, (B, H, T, S): what it sums with, rows sum to 1.  Approximate; the slow twin."""
        q, k = wide(q), wide(k)
        w = self.features.to(q.dtype) * scale**0.5
        b = k @ w.T - k.square().sum(-1, keepdim=True) * (scale / 2)
        b = b.masked_fill(~allowed.keep[:, None, :, None], -torch.inf)
        top = b.detach().amax(2, keepdim=True)
        top = top.masked_fill(top == -torch.inf, 0.0)
        a = q @ w.T + top
        a = a - a.detach().amax(-1, keepdim=True)
        made = a.exp() @ (b - top).exp().transpose(-1, -2)  # -> (B, H, T, S)
        made = made.masked_fill(~allowed.dense(), 0.0)
        total = made.sum(-1, keepdim=True)
        shares: Tensor = made / total.masked_fill(total == 0, 1.0)
        return shares


def readable(allowed: Allowed) -> Full | Causal:
    """The pattern.  Raises ConfigError QKV-013 for one that sums over features cannot keep."""
    if not isinstance(allowed.pattern, Full | Causal):
        raise ConfigError(
            f"attention by features sums over all keys: no {allowed.pattern}",
            fix="no window and no pattern",
            code="QKV-013",
        )
    return allowed.pattern


@dataclass(frozen=True)
class Documents:
    """Documents packed into rows, each given a row of its own: token (b, t) is token `place` of document `number`."""

    number: Tensor  # (B, T)
    place: Tensor  # (B, T)

    @classmethod
    def of(cls, group: Tensor) -> Self:
        place = restarted(group)
        return cls((place == 0).flatten().cumsum(0).view(group.shape) - 1, place)

    def apart(self, x: Heads) -> Heads:
        """(B, H, T, D) -> (documents, H, longest, D)."""
        shape = int(self.number.max()) + 1, int(self.place.max()) + 1
        made = x.new_zeros(*shape, x.shape[1], x.shape[3])
        return made.index_put((self.number, self.place), x.transpose(1, 2)).transpose(1, 2)

    def together(self, y: Heads) -> Heads:
        """The inverse."""
        return y.transpose(1, 2)[self.number, self.place].transpose(1, 2)


def layers(net: nn.Module) -> list[Favor]:
    return [m for m in net.modules() if isinstance(m, Favor)]


def draw_all(net: nn.Module, seed: int) -> None:
    """Each layer its own features, a pure function of the seed and the layer."""
    for i, layer in enumerate(layers(net)):
        layer.redraw(seed, 0, i)


def redraw(net: nn.Module, seed: int, step: int) -> None:
    """New features where step is a multiple of a layer's `redraw`: a pure function of (seed, step) and the layer."""
    for i, layer in enumerate(layers(net)):
        if layer.config.redraw and step % layer.config.redraw == 0:
            layer.redraw(seed, step, i)


def redrawn(net: nn.Module) -> bool:
    return any(layer.config.redraw for layer in layers(net))
