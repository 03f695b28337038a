"""Attention whose cost is linear in length: Σ_s φ(q)·φ(k_s) v_s / Σ_s φ(q)·φ(k_s), chunk by chunk, with its own gradient.

Features are exponentials, so they are handled by their exponents: a_i of a query, b_i of a key,
    φ(q)_i φ(k)_i = exp(a_i + b_i) = exp2((a_i + b_i) / ln 2);
here all exponents are in bits, since exp2 costs two fifths of exp.  Subtracted before: from b_i the largest b_i of the keys
that were read so far, top_i; added to a_i: the same top_i, minus the largest a_i + top_i of that query.  top cancels in the
product; the other is one number per query, shared by numerator and denominator.  So nothing is added and nothing biased,
and a denominator over all keys is at least 1.

Terms below exp2(FLOOR) = 8e-27 of the largest of their feature count as that: less than rounding, yet a query of a causal
pass, whose chunk holds far larger keys after it, never divides by 0.

Only q, k, v, the answer and one denominator per query are kept for the gradient: features are made again, a chunk at
a time, so that memory holds (n, D) numbers and never (n, m) or (n, m, D)."""

from dataclasses import dataclass, replace
from typing import Any, Self

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

    def rise(self, b: Tensor) -> None:
        """`top` becomes high enough for keys of exponents b (N, L, m)."""
        top = torch.maximum(self.top, b.amax(-2, keepdim=True))
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
    return [slice(at, min(at + CHUNK, n)) for at in range(0, n, CHUNK)]


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


# -- everybody looks at everybody -------------------------------------------------------------------------


def everything(r: Reading) -> Sums:
    """The sums over all keys."""
    sums = r.nothing()
    for at in chunks(r.k.shape[1]):
        b = r.exponents(at)
        sums.rise(b)
        sums.add(r.features(at, b, ground(sums.top)), r.values(at))
    return sums


def look(r: Reading, sums: Sums) -> tuple[Tensor, Tensor]:
    """(answers (N, T, D), denominators (N, T, 1))."""
    (y, below), base = r.answers(), ground(sums.top)
    for at in chunks(r.q.shape[1]):
        y[:, at], below[:, at] = split(r.times(r.asked(at, base), sums.total, "answer"))
    return y, below


def look_back(r: Reading, sums: Sums, found: Found) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v."""
    (dq, dk, dv), base = r.gradients(), ground(sums.top)
    total, back = sums.total.transpose(1, 2), torch.zeros_like(sums.total)  # back: of `total`
    for at in chunks(r.q.shape[1]):
        f, g1 = r.asked(at, base), found.slope(r, at)
        back.baddbmm_(f.transpose(1, 2), g1)
        dq[:, at] = r.to_query(f, r.times(g1, total, "slope"))
    inner, back1 = back[..., :-1].contiguous(), back.transpose(1, 2)
    for at in chunks(r.k.shape[1]):
        f = r.features(at, r.exponents(at), base)
        dv[:, at] = r.times(f, inner, "answer")
        dk[:, at] = r.to_key(at, f, r.times(r.values(at), back1, "slope"))
    return dq, dk, dv


# -- nobody looks ahead -----------------------------------------------------------------------------------


def step_by_step(r: Reading, sums: Sums) -> tuple[Tensor, Tensor]:
    """Queries and keys are the same tokens: each sees the past in `sums`, to which they are added, and its own part of the
    chunk."""
    y, below = r.answers()
    for at in chunks(r.q.shape[1]):
        b, v1 = r.exponents(at), r.values(at)
        sums.rise(b)
        base = ground(sums.top)
        fk, fq = r.features(at, b, base), r.asked(at, base)
        near = (fq @ fk.transpose(1, 2)).tril_()  # (N, L, L)
        y[:, at], below[:, at] = split(torch.baddbmm(near @ v1, fq, sums.total))
        sums.add(fk, v1)
    return y, below


def step_by_step_back(r: Reading, found: Found) -> tuple[Tensor, Tensor, Tensor]:
    """Forwards for the queries, which need the sums before them; backwards for keys and values."""
    dq, dk, dv = r.gradients()
    sums, tops = r.nothing(), []
    for at in chunks(r.q.shape[1]):
        b, v1, g1 = r.exponents(at), r.values(at), found.slope(r, at)
        tops.append(sums.top.clone())
        sums.rise(b)
        base = ground(sums.top)
        fk, fq = r.features(at, b, base), r.asked(at, base)
        near = (g1 @ v1.transpose(1, 2)).tril_()
        df = r.times(g1, sums.total.transpose(1, 2), "slope").baddbmm_(near, fk)
        dq[:, at] = r.to_query(fq, df)
        sums.add(fk, v1)
    top, back = sums.top, torch.zeros_like(sums.total)
    for at, before in zip(reversed(chunks(r.q.shape[1])), reversed(tops), strict=True):
        base = ground(top)
        fk, fq = r.features(at, r.exponents(at), base), r.asked(at, base)
        v1, g1 = r.values(at), found.slope(r, at)
        near = (g1 @ v1.transpose(1, 2)).tril_().transpose(1, 2)
        seen = (fk @ fq.transpose(1, 2)).triu_()
        dv[:, at] = torch.baddbmm(seen @ g1, fk, back)[..., :-1]
        df = r.times(v1, back.transpose(1, 2), "slope").baddbmm_(near, fq)
        dk[:, at] = r.to_key(at, fk, df)
        back.baddbmm_(fq.transpose(1, 2), g1).mul_(fade(before, top).transpose(1, 2))
        top = before
    return dq, dk, dv


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, q: Tensor, k: Tensor, v: Tensor, keep: Tensor, w: Tensor, scale: float, causal: bool
    ) -> Tensor:
        held: tuple[Tensor, ...] = ()
        with torch.autocast(q.device.type, enabled=False):
            r = Reading.of(q, k, v, keep, w, scale)
            if causal:
                y, below = step_by_step(r, r.nothing())
            else:
                sums = everything(r)
                (y, below), held = look(r, sums), (sums.total, sums.top)
        ctx.save_for_backward(r.q, r.k, r.v, r.w, r.real, r.half, y, below, *held)
        ctx.scale = scale
        return y.view(q.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, w, real, half, y, below, *held = ctx.saved_tensors
        B, H, _, D = g.shape
        with torch.autocast(g.device.type, enabled=False):
            r, found = Reading(q, k, v, w, real, ctx.scale, half), Found(y, below, g.flatten(0, 1))
            made = look_back(r, Sums(*held), found) if held else step_by_step_back(r, found)
        return (*(x.view(B, H, -1, D) for x in made), None, None, None, None)


def attend(
    q: Heads, k: Heads, v: Heads, keep: Keep, w: Tensor, *, scale: float, causal: bool
) -> Heads:
    """q (B, H, T, D) over k, v (B, H, S, D) with keep (B, S); causal: T = S.  The answer is at least float32."""
    T = q.shape[2]
    if not torch.is_grad_enabled():  # chunks of one size: law 2
        q, (k, v, keep) = filled(q), together(k, v, keep)
    y: Tensor = _Attend.apply(q, k, v, keep, w, scale, causal)  # type: ignore[no-untyped-call]
    return y[:, :, :T]


def filled(x: Heads) -> Heads:
    """Padded to whole chunks."""
    extra = -x.shape[2] % CHUNK
    return F.pad(x, (0, 0, 0, extra)) if extra else x


def together(k: Heads, v: Heads, keep: Keep) -> tuple[Heads, Heads, Keep]:
    return filled(k), filled(v), F.pad(keep, (0, -k.shape[2] % CHUNK))


def advance(
    q: Heads, k: Heads, v: Heads, keep: Keep, sums: Sums, w: Tensor, *, scale: float
) -> tuple[Heads, Sums]:
    """The next T tokens after those in `sums`, which come out with these added; keep (R, T).

    For one token only products and sums of numbers, whose bits do not depend on the other rows (law 2)."""
    R, H, T, D = q.shape
    flat = sums.flat()
    if T > 1:
        r = Reading.of(filled(q), *together(k, v, keep), w, scale)
        y, _ = step_by_step(r, flat)
    else:
        r = Reading.of(q, k, v, keep, w, scale)
        b, at = r.exponents(slice(0, 1)), slice(0, 1)
        flat.rise(b)
        flat.total.add_(
            r.features(at, b, ground(flat.top)).transpose(1, 2) * r.values(at)
        )  # (N, m, 1) · (N, 1, D + 1)
        asked = r.asked(at, ground(flat.top)).transpose(1, 2)
        y, _ = split((asked * flat.total).sum(1, keepdim=True))
    past = Sums(flat.total.view(sums.total.shape), flat.top.view(sums.top.shape))
    return y.view(R, H, -1, D)[:, :, :T], past
