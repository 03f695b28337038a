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
    """One call, rows and heads as one axis: q (N, T, D), k (N, S, D), v1 = [v, 1] (N, S, D + 1), w (m, D) times √scale.

    half = scale |k|²/2 (N, S, 1) in bits, infinite where a key is padding; real (N, S, 1) is 0 there and 1 elsewhere, and
    None where every key is real.  Numbers of a chunk's features are written where the last chunk's were."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v1: Tensor,
        w: Tensor,
        half: Tensor,
        real: Tensor | None,
        scale: float,
    ) -> None:
        self.q, self.k, self.v1, self.w = q, k, v1, w
        self.half, self.real, self.scale = half, real, scale
        self.bits = (w * LOG2E).T
        self.rooms: dict[str, Tensor] = {}

    @classmethod
    def of(cls, q: Heads, k: Heads, v: Heads, keep: Keep, w: Tensor, scale: float) -> Self:
        """From q (B, H, T, D), k and v (B, H, S, D), keep (B, S)."""
        q, k, v, real = wide(q), wide(k), wide(v), None
        if not bool(keep.all()):
            hidden = ~keep[:, None, :, None]
            k = k.masked_fill(hidden, 0.0)  # nothing there may be infinite
            real = (~hidden).to(k.dtype).expand(-1, k.shape[1], -1, -1).flatten(0, 1)
        q, k, v1 = (x.flatten(0, 1) for x in (q, k, F.pad(v, (0, 1), value=1.0)))
        half = k.square().sum(-1, keepdim=True) * (scale * LOG2E / 2)
        half = half if real is None else half.masked_fill(real == 0, torch.inf)
        return cls(q, k, v1, w.to(q.dtype) * scale**0.5, half, real, scale)

    def times(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        """x y (N, L, m), in the room of that name; y (N, ·, m), or (·, m) for all."""
        N, L, m = x.shape[0], x.shape[1], y.shape[-1]
        if name not in self.rooms:
            self.rooms[name] = x.new_empty(N, min(CHUNK, max(x.shape[1], 1)), m)
        return torch.bmm(x, y.expand(N, -1, -1), out=self.rooms[name][:, :L])

    def exponents(self, at: slice) -> Tensor:
        """b_i = w_i·k - |k|²/2 in bits, -inf in padding: (N, L, m)."""
        return self.times(self.k[:, at], self.bits, "key").sub_(self.half[:, at])

    def features(self, at: slice, b: Tensor, top: Tensor) -> Tensor:
        """exp2(b - top), 0 in padding; takes b's place."""
        f = b.sub_(ground(top)).clamp_(min=FLOOR).exp2_()
        return f if self.real is None else f.mul_(self.real[:, at])

    def asked(self, at: slice, top: Tensor) -> Tensor:
        """exp2(a + top - max) of the queries, the largest 1; |q|²/2 and 1/√m cancel and are left out."""
        a = self.times(self.q[:, at], self.bits, "query").add_(ground(top))
        return a.sub_(a.amax(-1, keepdim=True)).exp2_()

    def to_query(self, f: Tensor, df: Tensor) -> Tensor:
        """The gradient of q from that of its features, which it takes the place of."""
        return df.mul_(f) @ self.w

    def to_key(self, at: slice, f: Tensor, df: Tensor) -> Tensor:
        db = df.mul_(f)
        return db @ self.w - db.sum(-1, keepdim=True) * (self.scale * self.k[:, at])

    def nothing(self) -> Sums:
        N, _, D1 = self.v1.shape
        return Sums.empty(self.q, N, m=self.w.shape[0], d_head=D1 - 1)


# -- everybody looks at everybody -------------------------------------------------------------------------


def everything(r: Reading) -> Sums:
    """The sums over all keys."""
    sums = r.nothing()
    for at in chunks(r.k.shape[1]):
        b = r.exponents(at)
        sums.rise(b)
        sums.add(r.features(at, b, sums.top), r.v1[:, at])
    return sums


def look(r: Reading, sums: Sums) -> tuple[Tensor, Tensor]:
    """(answers (N, T, D), denominators (N, T, 1))."""
    y, below = torch.empty_like(r.q), torch.empty_like(r.q[..., :1])
    for at in chunks(r.q.shape[1]):
        y[:, at], below[:, at] = split(torch.bmm(r.asked(at, sums.top), sums.total))
    return y, below


def look_back(r: Reading, sums: Sums, g1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v; g1 (N, T, D + 1): those of numerator and denominator."""
    dq, dk, dv = (torch.empty_like(x) for x in (r.q, r.k, r.k))
    total, back = sums.total.transpose(1, 2), torch.zeros_like(sums.total)  # back: of `total`
    for at in chunks(r.q.shape[1]):
        f, g = r.asked(at, sums.top), g1[:, at]
        back.baddbmm_(f.transpose(1, 2), g)
        dq[:, at] = r.to_query(f, r.times(g, total, "slope"))
    inner, back1 = back[..., :-1].contiguous(), back.transpose(1, 2)
    for at in chunks(r.k.shape[1]):
        f = r.features(at, r.exponents(at), sums.top)
        torch.bmm(f, inner, out=dv[:, at])
        dk[:, at] = r.to_key(at, f, r.times(r.v1[:, at], back1, "slope"))
    return dq, dk, dv


# -- nobody looks ahead -----------------------------------------------------------------------------------


def step_by_step(r: Reading, sums: Sums) -> tuple[Tensor, Tensor]:
    """Queries and keys are the same tokens: each sees the past in `sums`, to which they are added, and its own part of the
    chunk."""
    y, below = torch.empty_like(r.q), torch.empty_like(r.q[..., :1])
    for at in chunks(r.q.shape[1]):
        b, v1 = r.exponents(at), r.v1[:, at]
        sums.rise(b)
        fk, fq = r.features(at, b, sums.top), r.asked(at, sums.top)
        near = (fq @ fk.transpose(1, 2)).tril_()  # (N, L, L)
        y[:, at], below[:, at] = split(torch.baddbmm(near @ v1, fq, sums.total))
        sums.add(fk, v1)
    return y, below


def step_by_step_back(r: Reading, g1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Forwards for the queries, which need the sums before them; backwards for keys and values."""
    dq, dk, dv = (torch.empty_like(x) for x in (r.q, r.k, r.k))
    sums, tops = r.nothing(), []
    for at in chunks(r.q.shape[1]):
        b, v1, g = r.exponents(at), r.v1[:, at], g1[:, at]
        tops.append(sums.top.clone())
        sums.rise(b)
        fk, fq = r.features(at, b, sums.top), r.asked(at, sums.top)
        near = (g @ v1.transpose(1, 2)).tril_()
        df = r.times(g, sums.total.transpose(1, 2), "slope").baddbmm_(near, fk)
        dq[:, at] = r.to_query(fq, df)
        sums.add(fk, v1)
    top, back = sums.top, torch.zeros_like(sums.total)
    for at, before in zip(reversed(chunks(r.q.shape[1])), reversed(tops), strict=True):
        fk, fq = r.features(at, r.exponents(at), top), r.asked(at, top)
        v1, g = r.v1[:, at], g1[:, at]
        near = (g @ v1.transpose(1, 2)).tril_().transpose(1, 2)
        seen = (fk @ fq.transpose(1, 2)).triu_()
        dv[:, at] = torch.baddbmm(seen @ g, fk, back)[..., :-1]
        df = r.times(v1, back.transpose(1, 2), "slope").baddbmm_(near, fq)
        dk[:, at] = r.to_key(at, fk, df)
        back.baddbmm_(fq.transpose(1, 2), g).mul_(fade(before, top).transpose(1, 2))
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
        ctx.save_for_backward(r.q, r.k, r.v1, r.w, r.half, r.real, y, below, *held)
        ctx.scale, ctx.dtype = scale, q.dtype
        return y.view(q.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v1, w, half, real, y, below, *held = ctx.saved_tensors
        with torch.autocast(g.device.type, enabled=False):
            r = Reading(q, k, v1, w, half, real, ctx.scale)
            B, H, _, D = g.shape
            g = wide(g).flatten(0, 1)
            g1 = torch.cat([g, -(g * y).sum(-1, keepdim=True)], -1).div_(below)
            made = look_back(r, Sums(*held), g1) if held else step_by_step_back(r, g1)
        return (*(x.to(ctx.dtype).view(B, H, -1, D) for x in made), None, None, None, None)


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
            r.features(at, b, flat.top).transpose(1, 2) * r.v1
        )  # (N, m, 1) · (N, 1, D + 1)
        asked = r.asked(at, flat.top).transpose(1, 2)
        y, _ = split((asked * flat.total).sum(1, keepdim=True))
    past = Sums(flat.total.view(sums.total.shape), flat.top.view(sums.top.shape))
    return y.view(R, H, -1, D)[:, :, :T], past
