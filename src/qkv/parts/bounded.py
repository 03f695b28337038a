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
its threads by itself.  Rows of m' features end at a vector's border: those of queries are 0 after the m-th."""

from functools import cache
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from .exponents import CHUNK, Reading, pieces, split
from .hardware import KEPT, add_product, multiplied
from .plan import SIXTEEN, up

BLOCK = 2048
MOST, FAR, LARGEST = 40.0, 24.0, 2.0**75
Three = tuple[Tensor, Tensor, Tensor]


class Made(NamedTuple):
    """What a call leaves to its gradient: total (N, D + 1, m'), centre (N, D), answers y (N, T, D) over `below` (N, T, 1), and
    features fq (N, T, m'), fk (N, S, m'): of no token where they are too many."""

    total: Tensor
    centre: Tensor
    y: Tensor
    below: Tensor
    fq: Tensor
    fk: Tensor

    @classmethod
    def of(cls, r: Reading) -> Self:
        """Room for it."""
        (N, T, D), S, m = r.q.shape, r.k.shape[1], up(len(r.w), SIXTEEN)
        fast, (y, below) = multiplied(r.q.dtype, r.w.dtype), r.answers()
        kept = N * (T + S) * m <= KEPT
        tables = (r.w.new_empty(N, n * kept, m, dtype=fast) for n in (T, S))
        return cls(r.w.new_zeros(N, D + 1, m), r.w.new_zeros(N, D), y, below, *tables)


def blocks(n: int) -> list[slice]:
    return pieces(n, BLOCK)


class Work:
    """On one head after the other, in the same memory."""

    def __init__(self, r: Reading, made: Made) -> None:
        self.r, self.made, self.fast = r, made, made.fq.dtype
        (m, D), wide = r.w.shape, up(len(r.w), SIXTEEN)
        self.bits = F.pad(r.bits, (0, wide - m))
        self.w = F.pad(r.w, (0, 0, 0, wide - m)).to(self.fast)
        n = min(BLOCK, max(r.q.shape[1], r.k.shape[1]))
        self.exponents = [r.w.new_empty(n, wide) for _ in "kq"]
        self.rooms = [r.w.new_empty(n, wide, dtype=self.fast) for _ in "kq"]
        self.df = r.w.new_empty(n, wide, dtype=self.fast)
        self.v1, self.g1 = (r.w.new_empty(n, D + 1, dtype=self.fast) for _ in range(2))

    def real(self, x: Tensor, n: int, at: slice) -> Tensor:
        """Those of head n of keys or values x (N, S, D), in the type of exponents; zeros in padding."""
        own, real = x[n, at].to(self.r.w.dtype), self.r.real
        return own if real is None else own.masked_fill(real[n, at] == 0, 0.0)

    def keys(self, n: int, at: slice, *, again: bool = False) -> Tensor:
        """f_k (L, m').  Raises TooLarge; again: what did not raise it, and is still there where it was kept."""
        if again and self.made.fk.shape[1]:
            return self.made.fk[n, at]
        return self.features(self.real(self.r.k, n, at), 0, self.made.fk, n, at, again)

    def queries(self, n: int, at: slice, *, again: bool = False) -> Tensor:
        """f_q (L, m')."""
        if again and self.made.fq.shape[1]:
            return self.made.fq[n, at]
        x = self.r.q[n, at].to(self.r.w.dtype)
        f = self.features(x, 1, self.made.fq, n, at, again)
        f[:, len(self.r.w) :] = 0.0
        return f

    def features(
        self, x: Tensor, room: int, table: Tensor, n: int, at: slice, again: bool
    ) -> Tensor:
        """exp2(w·x) of x (L, D), left in the table if there is one."""
        a = torch.mm(x, self.bits, out=self.exponents[room][: len(x)])
        if not again:
            least, most = a.aminmax()
            check(bool(least >= -MOST) and bool(most <= MOST))
        a.exp2_()
        if table.shape[1]:
            return table[n, at].copy_(a)
        return a if self.fast == a.dtype else self.rooms[room][: len(x)].copy_(a)

    def values(self, n: int, at: slice) -> tuple[Tensor, Tensor]:
        """v' (L, D + 1), and exp2(-|k|²/2) (L, 1), 0 in padding."""
        s, v = torch.exp2(-self.r.half[n, at]), self.real(self.r.v, n, at)
        v1 = self.v1[: len(v)]
        v1[:, :-1] = v.sub(self.made.centre[n]).mul_(s)
        v1[:, -1:] = s
        return v1, s

    def centre(self, n: int) -> None:
        v, real = self.real(self.r.v, n, slice(None)), self.r.real
        count = len(v) if real is None else float(real[n].sum())
        self.made.centre[n] = v.sum(0) / max(1.0, count)

    def answer(self, n: int) -> None:
        """Fills what belongs to head n.  Raises TooLarge."""
        total = self.made.total[n]
        self.centre(n)
        for at in blocks(self.r.k.shape[1]):
            add_product(total, self.values(n, at)[0].T, self.keys(n, at))
        check(bool(total.abs().max() <= LARGEST))
        fast = total.to(self.fast).T
        for at in blocks(self.r.q.shape[1]):
            self.found(n, at, torch.mm(self.queries(n, at), fast))

    def found(self, n: int, at: slice, y1: Tensor) -> None:
        """Keeps answers, given [num, den] (L, D + 1); 0 where nothing was seen."""
        y1 = y1.to(self.r.w.dtype)
        seen, (y, below) = y1[:, -1:] != 0, split(y1)
        self.made.y[n, at] = y.addcmul_(self.made.centre[n], seen.to(y.dtype))
        self.made.below[n, at] = below

    def blame(self, n: int, g: Tensor, to: Three) -> None:
        """Fills the gradients of q, k and v of head n from that of y, g (T, D)."""
        total = self.made.total[n]
        back, total = torch.zeros_like(total), total.to(self.fast)  # back: the gradient of `total`
        for at in blocks(self.r.q.shape[1]):
            f, g1 = self.queries(n, at, again=True), self.slope(n, at, g[at])
            add_product(back, g1.T, f)
            to[0][n, at] = torch.mm(g1, total, out=self.df[: len(f)]).mul_(f) @ self.w
        back = back.to(self.fast)
        for at in blocks(self.r.k.shape[1]):
            f, (v1, s) = self.keys(n, at, again=True), self.values(n, at)
            df = torch.mm(v1, back, out=self.df[: len(f)]).mul_(f)
            self.to_keys(n, at, df, torch.mm(f, back.T), v1, s, to)

    def to_keys(
        self, n: int, at: slice, db: Tensor, dv1: Tensor, v1: Tensor, s: Tensor, to: Three
    ) -> None:
        """Fills the gradients of keys and values from those of exponents db (L, m') and of v' (L, D + 1)."""
        (_, dk, dv), dv1 = to, dv1.to(s.dtype)
        dv[n, at] = dv1[:, :-1] * s
        of_half = dv1.mul_(v1).sum(-1, keepdim=True)
        dk[n, at] = db @ self.w - of_half * (self.r.scale * self.real(self.r.k, n, at))

    def slope(self, n: int, at: slice, g: Tensor) -> Tensor:
        """The gradient of [numerator, denominator], (L, D + 1): [g, -g·(y - c)] / denominator."""
        made, g1 = self.made, self.g1[: len(g)]
        g = g / made.below[n, at]
        g1[:, :-1] = g
        g1[:, -1] = g.mul_(made.y[n, at] - made.centre[n]).sum(-1).neg_()
        return g1


class Past(Work):
    """Where nobody looks ahead: each query sees what chunks before its own come to, and the keys of its own up to itself."""

    def __init__(self, r: Reading, made: Made) -> None:
        super().__init__(r, made)
        self.chunks = self.df.new_empty(len(self.df) // CHUNK + 1, *made.total.shape[1:])

    def running(self, total: Tensor, x1: Tensor, f: Tensor, *, back: bool = False) -> Tensor:
        """What the sums x1ᵀ f of chunks (D + 1, m') come to before each, or with `back` after each: (c, D + 1, m').  total: of
        the blocks already done; those of this one are added to it."""
        held = self.chunks[: len(f) + 1]
        held[0] = total
        torch.bmm(x1.transpose(1, 2), f, out=held[1:])
        made = torch.mm(order(len(f), back, self.fast), held.flatten(1)).view(held.shape)
        total.add_(made[-1])
        return made[:-1]

    def answer(self, n: int) -> None:
        total = self.made.total[n]
        self.centre(n)
        for at in blocks(self.r.q.shape[1]):
            fk, fq = chunked(self.keys(n, at)), chunked(self.queries(n, at))
            v1 = chunked(self.values(n, at)[0])
            before = self.running(total, v1, fk)
            y1 = torch.bmm(fq, before.transpose(1, 2)).to(total.dtype)
            self.found(n, at, y1.add_(torch.bmm(near(fq, fk), v1)).flatten(0, 1))
        check(bool(total.abs().max() <= LARGEST))

    def blame(self, n: int, g: Tensor, to: Three) -> None:
        total, parts = torch.zeros_like(self.made.total[n]), blocks(self.r.q.shape[1])
        for at in parts:
            fk, fq, v1, g1 = self.both(n, at, g)[:4]
            before = self.running(total, v1, fk)
            df = torch.bmm(g1, before, out=chunked(self.df[: at.stop - at.start]))
            df.baddbmm_(near(g1, v1), fk).mul_(fq)
            to[0][n, at] = df.flatten(0, 1) @ self.w
        total.zero_()
        for at in reversed(parts):
            fk, fq, v1, g1, s = self.both(n, at, g)
            after = self.running(total, g1, fq, back=True)
            dv1 = torch.bmm(fk, after.transpose(1, 2)).to(total.dtype)
            dv1.add_(torch.bmm(near(fq, fk).transpose(1, 2), g1))
            df = torch.bmm(v1, after, out=chunked(self.df[: at.stop - at.start]))
            df.baddbmm_(near(g1, v1).transpose(1, 2), fq).mul_(fk)
            df, dv1, v1 = (x.flatten(0, 1) for x in (df, dv1, v1))
            self.to_keys(n, at, df, dv1, v1, s, to)

    def both(self, n: int, at: slice, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """f_k, f_q, v', and the gradient of [num, den], by chunks; exp2(-|k|²/2)."""
        fk, fq = self.keys(n, at, again=True), self.queries(n, at, again=True)
        v1, s = self.values(n, at)
        fk, fq, v1, g1 = (chunked(x) for x in (fk, fq, v1, self.slope(n, at, g[at])))
        return fk, fq, v1, g1, s


@cache
def order(c: int, back: bool, dtype: torch.dtype) -> Tensor:
    """(c + 1, c + 1): which of [those before a block, its c chunks] are summed for each chunk; last for the block by itself."""
    made = torch.ones(c + 1, c + 1, dtype=dtype)
    made = made.triu(2) if back else made.tril()
    made[:, 0], made[-1] = 1.0, 1.0
    made[-1, 0] = 0.0
    return made


def chunked(x: Tensor) -> Tensor:
    return x.view(-1, CHUNK, x.shape[-1])


def near(x: Tensor, y: Tensor) -> Tensor:
    """x yᵀ of each chunk (c, CHUNK, CHUNK), 0 for what comes later."""
    return torch.bmm(x, y.transpose(1, 2)).tril_()


class TooLarge(Exception):
    """A number for which this is not made."""


def check(right: bool) -> None:
    if not right:
        raise TooLarge


def look(r: Reading, *, causal: bool) -> Made | None:
    """The answers; None where numbers are too large, or none, for this to be right.  causal: whole chunks."""
    far = r.half if r.real is None else r.half.masked_fill(r.real == 0, 0.0)
    if far.numel() and not bool(far.max() <= FAR):
        return None
    made = Made.of(r)
    work = (Past if causal else Work)(r, made)
    try:
        for n in range(len(r.q)):
            work.answer(n)
    except TooLarge:
        return None
    return made


def look_back(r: Reading, made: Made, g: Tensor, *, causal: bool) -> Three:
    """Gradients of q, k, v from that of the answers, g (N, T, D)."""
    to, work = r.gradients(), (Past if causal else Work)(r, made)
    for n in range(len(r.q)):
        work.blame(n, g[n], to)
    return to
