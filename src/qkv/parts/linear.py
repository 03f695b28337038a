"""Attention whose cost is linear in length: Σ_s φ(q)·φ(k_s) v_s / Σ_s φ(q)·φ(k_s), chunk by chunk, with its own gradient.

What is here is right for all numbers; `bounded` is the short way of a training on a CPU in which none is large.  For the
gradient q, k, v, the answer and one denominator per query are kept: features are made again, a chunk at a time, so that memory
holds (n, D) numbers and never (n, m) or (n, m, D)."""

from typing import Any

import torch
from torch import Tensor

from ..shapes import Heads, Keep
from . import bounded
from .exponents import (
    Found,
    Reading,
    Sums,
    chunks,
    fade,
    filled,
    ground,
    split,
    together,
)
from .once import once

# -- everybody looks at everybody -------------------------------------------------------------------------


def everything(r: Reading) -> Sums:
    """The sums over all keys."""
    sums = r.nothing()
    for at in chunks(r.k.shape[1]):
        sums.add(r.read(sums, at), r.values(at))
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
        f = r.seen(at, sums.top)
        dv[:, at] = r.times(f, inner, "answer")
        dk[:, at] = r.to_key(at, f, r.times(r.values(at), back1, "slope"))
    return dq, dk, dv


# -- nobody looks ahead -----------------------------------------------------------------------------------


def step_by_step(r: Reading, sums: Sums) -> tuple[Tensor, Tensor]:
    """Queries and keys are the same tokens: each sees the past in `sums`, to which they are added, and its own part of the
    chunk."""
    y, below = r.answers()
    for at in chunks(r.q.shape[1]):
        v1, fk = r.values(at), r.read(sums, at)
        fq = r.asked(at, ground(sums.top))
        near = (fq @ fk.transpose(1, 2)).tril_()  # (N, L, L)
        y[:, at], below[:, at] = split(torch.baddbmm(near @ v1, fq, sums.total))
        sums.add(fk, v1)
    return y, below


def step_by_step_back(r: Reading, found: Found) -> tuple[Tensor, Tensor, Tensor]:
    """Forwards for the queries, which need the sums before them; backwards for keys and values."""
    dq, dk, dv = r.gradients()
    sums, tops = r.nothing(), []
    for at in chunks(r.q.shape[1]):
        v1, g1 = r.values(at), found.slope(r, at)
        tops.append(sums.top.clone())
        fk = r.read(sums, at)
        fq = r.asked(at, ground(sums.top))
        near = (g1 @ v1.transpose(1, 2)).tril_()
        df = r.times(g1, sums.total.transpose(1, 2), "slope").baddbmm_(near, fk)
        dq[:, at] = r.to_query(fq, df)
        sums.add(fk, v1)
    top, back = sums.top, torch.zeros_like(sums.total)
    for at, before in zip(reversed(chunks(r.q.shape[1])), reversed(tops), strict=True):
        fk, fq = r.seen(at, top), r.asked(at, ground(top))
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
        learns, made = any(ctx.needs_input_grad), None
        saved: tuple[Tensor, ...]
        with torch.autocast(q.device.type, enabled=False):
            r = Reading.of(q, k, v, keep, w, scale)
            if learns and q.device.type == "cpu":
                made = bounded.look(r, causal=causal)
            if made is not None:
                y, saved = made.y, (*made,)
            elif causal:
                y, below = step_by_step(r, r.nothing())
                saved = (y, below)
            else:
                sums = everything(r)
                y, below = look(r, sums)
                saved = (y, below, sums.total, sums.top)
        ctx.save_for_backward(q, k, v, r.w, r.real, r.half, *saved)
        ctx.scale, ctx.causal, ctx.bounded = scale, causal, made is not None
        return y.view(q.shape)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, w, real, half, *saved = ctx.saved_tensors
        q1, k1, v1, flat = (x.flatten(0, 1) for x in (q, k, v, g))
        call = q1, k1, v1, w, real, ctx.scale, half
        with torch.no_grad(), torch.autocast(g.device.type, enabled=False):
            if ctx.bounded:
                found = bounded.Made(*saved)
                made = bounded.look_back(Reading(*call), found, flat, causal=ctx.causal)
            else:
                y, below, *sums = saved
                r, asked = Reading(*call), Found(y, below, flat)
                made = look_back(r, Sums(*sums), asked) if sums else step_by_step_back(r, asked)
        B, H, _, D = g.shape
        whole = tuple(x.view(B, H, -1, D) for x in made)
        return (*once(whole, g, q, k, v), None, None, None, None)


def attend(
    q: Heads, k: Heads, v: Heads, keep: Keep, w: Tensor, *, scale: float, causal: bool
) -> Heads:
    """q (B, H, T, D) over k, v (B, H, S, D) with keep (B, S); causal: T = S.  The answer is at least float32."""
    T = q.shape[2]
    if causal or not torch.is_grad_enabled():  # whole chunks; without a gradient for law 2
        q, (k, v, keep) = filled(q), together(k, v, keep)
    y: Tensor = _Attend.apply(q, k, v, keep, w, scale, causal)  # type: ignore[no-untyped-call]
    return y[:, :, :T]


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
        at = slice(0, 1)
        f = r.read(flat, at).transpose(1, 2)  # (N, m, 1)
        flat.total.add_(f * r.values(at))
        asked = r.asked(at, ground(flat.top)).transpose(1, 2)
        y, _ = split((asked * flat.total).sum(1, keepdim=True))
    past = Sums(flat.total.view(sums.total.shape), flat.top.view(sums.top.shape))
    return y.view(R, H, -1, D)[:, :, :T], past
