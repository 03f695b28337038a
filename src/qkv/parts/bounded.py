"""Linear attention of everybody over everybody, for training on a CPU, where no exponent is large: features as they stand.

With |w·q| and |w·k| of at most MOST bits and |k|²/2 of at most FAR nothing has to be subtracted from an exponent:
    f_q = exp2(w·q),  f_k = exp2(w·k),  v' = exp2(-|k|²/2) [v - c, 1],  total = Σ_s f_k v',  [num, den] = f_q · total,
    y = c + num / den.
A denominator is then at least exp2(-2 MOST - FAR) = 5e-32, and a numerator at most m exp2(MOST) LARGEST = 1e37, where
`total` is at most that: both within float32.  `linear` is right for all numbers, and the slow twin of this.

c is the mean of a head's values.  Answers are weighted means, so it changes none; but without it what rounding costs would be
a part of what all values have in common, and gradients are differences from which that has gone.

Texts in bfloat16 are multiplied so where the processor does that in hardware: all but exponents, which are made in float32, as
are all sums over blocks.  One head after the other, BLOCK tokens at a time: few and large products, which torch shares among
its threads by itself.  Rows of m' features end at a vector's border: those after the m-th are 1, and `total` is 0 there."""

from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from .exponents import Reading, split
from .hardware import KEPT, multiplied

BLOCK = 2048
BORDER = 16  # float32 numbers in a vector
MOST, FAR, LARGEST = 40.0, 24.0, 2.0**75
Three = tuple[Tensor, Tensor, Tensor]


class Made(NamedTuple):
    """What a call leaves to its gradient: total (N, D + 1, m'), centre (N, D), answers y (N, T, D) over `below` (N, T, 1), and
    features fq (N, T, m'), fk (N, S, m'): of no token in float32, where the first touch of so much memory costs as much as making
    them again, nor where they are too many."""

    total: Tensor
    centre: Tensor
    y: Tensor
    below: Tensor
    fq: Tensor
    fk: Tensor

    @classmethod
    def of(cls, r: Reading) -> Self:
        """Room for it."""
        (N, T, D), S, m = r.q.shape, r.k.shape[1], up(len(r.w))
        fast, (y, below) = multiplied(r.q.dtype, r.w.dtype), r.answers()
        kept = fast != r.w.dtype and N * (T + S) * m <= KEPT
        tables = (r.w.new_empty(N, n * kept, m, dtype=fast) for n in (T, S))
        return cls(r.w.new_zeros(N, D + 1, m), r.w.new_zeros(N, D), y, below, *tables)


def up(m: int) -> int:
    return -(-m // BORDER) * BORDER


def blocks(n: int) -> list[slice]:
    return [slice(at, min(at + BLOCK, n)) for at in range(0, n, BLOCK)]


class Work:
    """On one head after the other, in the same memory."""

    def __init__(self, r: Reading, made: Made) -> None:
        self.r, self.made, self.fast = r, made, made.fq.dtype
        (m, D), extra = r.w.shape, up(len(r.w)) - len(r.w)
        self.bits = F.pad(r.bits, (0, extra))
        self.w = F.pad(r.w, (0, 0, 0, extra)).to(self.fast)
        n = min(BLOCK, max(r.q.shape[1], r.k.shape[1]))
        self.a = r.w.new_empty(n, m + extra)
        self.f, self.df = (r.w.new_empty(n, m + extra, dtype=self.fast) for _ in range(2))
        self.v1, self.g1 = (r.w.new_empty(n, D + 1, dtype=self.fast) for _ in range(2))

    def real(self, x: Tensor, n: int, at: slice) -> Tensor:
        """Those of head n of keys or values x (N, S, D), in the type of exponents; zeros in padding."""
        own, real = x[n, at].to(self.r.w.dtype), self.r.real
        return own if real is None else own.masked_fill(real[n, at] == 0, 0.0)

    def features(self, x: Tensor, n: int, at: slice, table: Tensor) -> Tensor | None:
        """exp2(w·x) (L, m) of x (L, D), left in the table if there is one; None where an exponent is too large."""
        a = self.exponents(x)
        least, most = a.aminmax()
        if not (bool(least >= -MOST) and bool(most <= MOST)):
            return None
        return self.exp2(a, table[n, at] if table.shape[1] else self.f[: len(x)])

    def again(self, x: Tensor, n: int, at: slice, table: Tensor) -> Tensor:
        """The same on the way back."""
        return table[n, at] if table.shape[1] else self.exp2(self.exponents(x), self.f[: len(x)])

    def exponents(self, x: Tensor) -> Tensor:
        """w·x in bits."""
        return torch.mm(x, self.bits, out=self.a[: len(x)])

    def exp2(self, a: Tensor, out: Tensor) -> Tensor:
        """In place, or in `out` where products have another type."""
        a.exp2_()
        return a if a.dtype == self.fast else out.copy_(a)

    def queries(self, n: int, at: slice) -> Tensor:
        return self.r.q[n, at].to(self.r.w.dtype)

    def values(self, n: int, at: slice) -> tuple[Tensor, Tensor]:
        """v' (L, D + 1), and exp2(-|k|²/2) (L, 1), 0 in padding."""
        s, v = torch.exp2(-self.r.half[n, at]), self.real(self.r.v, n, at)
        v1 = self.v1[: len(v)]
        v1[:, :-1] = v.sub(self.made.centre[n]).mul_(s)
        v1[:, -1:] = s
        return v1, s

    def add(self, total: Tensor, x1: Tensor, f: Tensor) -> None:
        """Add x1ᵀ f, x1 (L, D + 1) and f (L, m), to total (D + 1, m)."""
        if self.fast == total.dtype:
            total.addmm_(x1.T, f)
        else:
            total.add_(torch.mm(x1.T, f))

    def answer(self, n: int) -> bool:
        """Fills what belongs to head n.  False where a number was too large: then it means nothing."""
        r, made, total = self.r, self.made, self.made.total[n]
        v = self.real(r.v, n, slice(None))
        made.centre[n] = v.sum(0) / max(1.0, len(v) if r.real is None else float(r.real[n].sum()))
        for at in blocks(r.k.shape[1]):
            f = self.features(self.real(r.k, n, at), n, at, made.fk)
            if f is None:
                return False
            self.add(total, self.values(n, at)[0], f)
        total[:, len(r.w) :] = 0.0
        if not bool(total.abs().max() <= LARGEST):
            return False
        fast = total.to(self.fast).T
        for at in blocks(r.q.shape[1]):
            f = self.features(self.queries(n, at), n, at, made.fq)
            if f is None:
                return False
            y, below = split(torch.mm(f, fast).to(total.dtype))
            made.y[n, at], made.below[n, at] = y.add_(made.centre[n]), below
        return True

    def blame(self, n: int, g: Tensor, to: Three) -> None:
        """Fills the gradients of q, k and v of head n from that of y, g (T, D)."""
        (dq, dk, dv), r, made = to, self.r, self.made
        total, back = made.total[n].to(self.fast), torch.zeros_like(made.total[n])  # of `total`
        for at in blocks(r.q.shape[1]):
            f, g1 = self.again(self.queries(n, at), n, at, made.fq), self.slope(n, at, g[at])
            self.add(back, g1, f)
            dq[n, at] = self.to_exponents(g1, total, f) @ self.w
        back[:, len(r.w) :] = 0.0
        fast = back.to(self.fast)
        for at in blocks(r.k.shape[1]):
            k, (v1, s) = self.real(r.k, n, at), self.values(n, at)
            f = self.again(k, n, at, made.fk)
            dv1 = torch.mm(f, fast.T).to(s.dtype)  # of v'
            dv[n, at] = dv1[:, :-1] * s
            of_half = dv1.mul_(v1).sum(-1, keepdim=True)
            dk[n, at] = self.to_exponents(v1, fast, f) @ self.w - of_half * (r.scale * k)

    def slope(self, n: int, at: slice, g: Tensor) -> Tensor:
        """The gradient of [numerator, denominator], (L, D + 1): [g, -g·(y - c)] / denominator."""
        made, g1 = self.made, self.g1[: len(g)]
        g = g / made.below[n, at]
        g1[:, :-1] = g
        g1[:, -1] = g.mul_(made.y[n, at] - made.centre[n]).sum(-1).neg_()
        return g1

    def to_exponents(self, x1: Tensor, total: Tensor, f: Tensor) -> Tensor:
        """The gradient of a block's exponents: f · (x1 total)."""
        return torch.mm(x1, total, out=self.df[: len(x1)]).mul_(f)


def look(r: Reading) -> Made | None:
    """The answers; None where numbers are too large, or none, for this to be right."""
    far = r.half if r.real is None else r.half.masked_fill(r.real == 0, 0.0)
    if far.numel() and not bool(far.max() <= FAR):
        return None
    made = Made.of(r)
    work = Work(r, made)
    return made if all(work.answer(n) for n in range(len(r.q))) else None


def look_back(r: Reading, made: Made, g: Tensor) -> Three:
    """Gradients of q, k, v from that of the answers, g (N, T, D)."""
    to, work = r.gradients(), Work(r, made)
    for n in range(len(r.q)):
        work.blame(n, g[n], to)
    return to
