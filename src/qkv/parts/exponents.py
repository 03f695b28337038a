"""What linear attention is made of, a chunk of tokens at a time: features by their exponents, and what the past sums up to.

Features are exponentials, so they are handled by their exponents: a_i of a query, b_i of a key,
    φ(q)_i φ(k)_i = exp(a_i + b_i) = exp2((a_i + b_i) / ln 2);
here all exponents are in bits, since exp2 costs two fifths of exp.  Subtracted before: from b_i the largest b_i of the keys
that were read so far, top_i; added to a_i: the same top_i, minus the largest a_i + top_i of that query.  top cancels in the
product; the other is one number per query, shared by numerator and denominator.  So nothing is added and nothing biased,
and a denominator over all keys is at least 1.

Terms below exp2(FLOOR) = 8e-27 of the largest of their feature count as that: less than rounding, yet a query of a causal
pass, whose chunk holds far larger keys after it, never divides by 0."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import Heads, Keep

CHUNK = 64  # tokens at a time; no matrix product sums 64 numbers in more than one piece (law 2)
FLOOR = -86.6
LOG2E = 1.4426950408889634


@dataclass(frozen=True)
class Sums:
    """What a past of any length comes to: total = Σ_s exp2(b_s - top) [v_s, 1] (R, H, m, D + 1), top (R, H, 1, m).

    Within a pass R and H are one axis N, and what is read is added in place."""

    total: Tensor
    top: Tensor

    @classmethod
    def empty(cls, like: Tensor, *shape: int, m: int, d_head: int) -> Self:
        """For rows and heads `shape`."""
        kind = wide(like).dtype
        total = like.new_zeros(*shape, m, d_head + 1, dtype=kind)
        return cls(total, like.new_full((*shape, 1, m), -torch.inf, dtype=kind))

    def reorder(self, rows: Tensor) -> Self:
        total, top = self.total.index_select(0, rows), self.top.index_select(0, rows)
        return replace(self, total=total, top=top)

    def flat(self) -> Self:
        """A copy with rows and heads as one axis."""
        return replace(
            self, total=self.total.flatten(0, 1).clone(), top=self.top.flatten(0, 1).clone()
        )

    def rise(self, most: Tensor) -> None:
        """`top` becomes at least `most` (N, 1, m), the largest exponents of keys that are about to be read."""
        top = torch.maximum(self.top, most)
        self.total.mul_(fade(self.top, top).transpose(-1, -2))
        self.top.copy_(top)

    def add(self, f: Tensor, v1: Tensor) -> None:
        """Keys of features f (N, L, m) and values v1 = [v, 1] (N, L, D + 1)."""
        self.total.baddbmm_(f.transpose(1, 2), v1)


def wide(x: Tensor) -> Tensor:
    """Exponentials want at least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def ground(top: Tensor) -> Tensor:
    """top, and 0 where no key was read."""
    return top.masked_fill(top == -torch.inf, 0.0)


def fade(old: Tensor, new: Tensor) -> Tensor:
    """exp2(old - new): what sums made with one top are multiplied by under another."""
    return (old - ground(new)).clamp_(min=FLOOR).exp2_()


def split(y1: Tensor) -> tuple[Tensor, Tensor]:
    """[numerator, denominator] -> the answer and the denominator; where nothing was seen 0 and 1."""
    below = y1[..., -1:]
    below = below.masked_fill(below == 0, 1.0)
    return y1[..., :-1] / below, below


def chunks(n: int) -> list[slice]:
    return pieces(n, CHUNK)


def pieces(n: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, n)) for at in range(0, n, size)]


def filled(x: Heads) -> Heads:
    """Padded to whole chunks."""
    extra = -x.shape[2] % CHUNK
    return F.pad(x, (0, 0, 0, extra)) if extra else x


def together(k: Heads, v: Heads, keep: Keep) -> tuple[Heads, Heads, Keep]:
    """The same of keys and values; what is filled in is padding."""
    return filled(k), filled(v), F.pad(keep, (0, -k.shape[2] % CHUNK))


class Reading:
    """One call, rows and heads as one axis: q (N, T, D), k and v (N, S, D), w (m, D) times √scale; what is (N, ·, D) may be
    of a smaller type than numbers here are.

    half = scale |k|²/2 (N, S, 1) in bits, infinite where a key is padding; real (N, S, 1) is 0 there and 1 elsewhere, and
    None where every key is real.  What is made of a chunk is written where that of the last chunk was."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        w: Tensor,
        real: Tensor | None,
        scale: float,
        half: Tensor | None = None,
    ) -> None:
        self.q, self.k, self.v, self.w = q, k, v, w
        self.real, self.scale = real, scale
        self.bits = (w * LOG2E).T
        self.rooms: dict[str, Tensor] = {}
        self.half = self.halves() if half is None else half

    @classmethod
    def of(cls, q: Heads, k: Heads, v: Heads, keep: Keep, w: Tensor, scale: float) -> Self:
        """From q (B, H, T, D), k and v (B, H, S, D), keep (B, S)."""
        real, kind = None, wide(q).dtype
        if not bool(keep.all()):
            real = keep[:, None, :, None].to(kind).expand(-1, k.shape[1], -1, -1).flatten(0, 1)
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        return cls(q, k, v, w.to(kind) * scale**0.5, real, scale)

    def halves(self) -> Tensor:
        half = self.w.new_empty(*self.k.shape[:2], 1)
        for at in chunks(self.k.shape[1]):
            torch.sum(self.keys(at).square(), -1, keepdim=True, out=half[:, at])
        half.mul_(self.scale * LOG2E / 2)
        return half if self.real is None else half.masked_fill_(self.real == 0, torch.inf)

    def room(self, name: str, N: int, L: int, m: int) -> Tensor:
        """(N, L, m), whose numbers are those of the last chunk."""
        if name not in self.rooms:
            self.rooms[name] = self.w.new_ones(N, min(CHUNK, max(L, 1)), m)
        return self.rooms[name][:, :L]

    def times(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        """x y (N, L, m), in the room of that name; y (N, ·, m), or (·, m) for all."""
        N, L, m = x.shape[0], x.shape[1], y.shape[-1]
        return torch.bmm(x, y.expand(N, -1, -1), out=self.room(name, N, L, m))

    def part(self, x: Tensor, at: slice, name: str) -> Tensor:
        """x (N, ·, D) of a chunk, in the type of numbers here."""
        x = x[:, at]
        return x if x.dtype == self.w.dtype else self.room(name, *x.shape).copy_(x)

    def keys(self, at: slice) -> Tensor:
        """(N, L, D); nothing in padding may be infinite."""
        k = self.part(self.k, at, "k")
        return k if self.real is None else k.masked_fill(self.real[:, at] == 0, 0.0)

    def values(self, at: slice) -> Tensor:
        """[v, 1] (N, L, D + 1)."""
        v = self.v[:, at]
        v1 = self.room("v", v.shape[0], v.shape[1], v.shape[2] + 1)
        v1[..., :-1] = v
        return v1

    def read(self, sums: Sums, at: slice) -> Tensor:
        """Features of keys under the `top` of `sums`, which they make rise."""
        b = self.exponents(at)
        sums.rise(b.amax(-2, keepdim=True))
        return self.features(at, b, ground(sums.top))

    def exponents(self, at: slice) -> Tensor:
        """b_i = w_i·k - |k|²/2 in bits, -inf in padding: (N, L, m)."""
        return self.times(self.keys(at), self.bits, "key").sub_(self.half[:, at])

    def features(self, at: slice, b: Tensor, base: Tensor) -> Tensor:
        """exp2(b - base), 0 in padding; takes b's place.  base (N, 1, m): the ground of `top`."""
        f = b.sub_(base).clamp_(min=FLOOR).exp2_()
        return f if self.real is None else f.mul_(self.real[:, at])

    def asked(self, at: slice, base: Tensor) -> Tensor:
        """exp2(a + base - max) of the queries, the largest 1; |q|²/2 and 1/√m cancel and are left out."""
        a = self.times(self.part(self.q, at, "q"), self.bits, "query").add_(base)
        return a.sub_(a.amax(-1, keepdim=True)).exp2_()

    def seen(self, at: slice, top: Tensor) -> Tensor:
        """Features of keys under a `top` that has risen as far as theirs."""
        return self.features(at, self.exponents(at), ground(top))

    def to_query(self, f: Tensor, df: Tensor) -> Tensor:
        """The gradient of q from that of its features, which it takes the place of."""
        return df.mul_(f) @ self.w

    def to_key(self, at: slice, f: Tensor, df: Tensor) -> Tensor:
        db = df.mul_(f)
        return db @ self.w - db.sum(-1, keepdim=True) * (self.scale * self.keys(at))

    def nothing(self) -> Sums:
        N, _, D = self.v.shape
        return Sums.empty(self.q, N, m=self.w.shape[0], d_head=D)

    def answers(self) -> tuple[Tensor, Tensor]:
        """Room for what is found: y (N, T, D) and its denominators (N, T, 1)."""
        return self.w.new_empty(self.q.shape), self.w.new_empty(*self.q.shape[:2], 1)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Room for those of q, k and v, in the types of these."""
        return torch.empty_like(self.q), torch.empty_like(self.k), torch.empty_like(self.v)


@dataclass(frozen=True)
class Found:
    """What a pass came to, and what its gradient begins with: y and g (N, T, D), below (N, T, 1)."""

    y: Tensor
    below: Tensor
    g: Tensor

    def slope(self, r: Reading, at: slice) -> Tensor:
        """The gradient of [numerator, denominator], (N, L, D + 1): [g, -g·y] / denominator."""
        g = r.part(self.g, at, "g")
        g1 = r.room("g1", g.shape[0], g.shape[1], g.shape[2] + 1)
        torch.div(g, self.below[:, at], out=g1[..., :-1])
        g1[..., -1:] = (g1[..., :-1] * self.y[:, at]).sum(-1, keepdim=True).neg_()
        return g1
