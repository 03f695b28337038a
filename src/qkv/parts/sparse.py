"""Attention over patterns that are recognised, in time and memory linear in the length; `kernels.dense` is the slow twin.

Every text of a batch is worked on by itself and to its own length, so neighbours and padding change no bit (law 2)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..shapes import Heads
from .banded import Drop, Keys, Known, Queries, Scratch, Slopes, backward, forward, normal
from .dropout import Pieces
from .plan import Lane, Plan, Row
from .threads import each

SCORES = 1 << 20  # numbers of scores held at once for tokens that see all
WHOLE = 1 << 40  # stands for a lane among the masks' numbers
LOG2E = 1.4426950408889634  # scores are in bits: exp2 costs half of exp
Three = tuple[Tensor, Tensor, Tensor]
Fill = Callable[[Row, slice, list[Tensor]], None]


def sparse(
    q: Heads, k: Heads, v: Heads, plan: Plan, *, scale: float, drop: Pieces | None = None
) -> Heads:
    """softmax(scale · q kᵀ) v over the pairs of the plan: q, k, v (B, H, T, D) -> (B, H, T, D) of the plan's type.

    drop: the mask by which weights are dropped."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        made: Tensor = Sparse.apply(q, k, v, plan, scale, drop)  # type: ignore[no-untyped-call]
        return made
    return run(q, k, v, plan, scale, drop)[0]


class Sparse(torch.autograd.Function):
    """Remembers q, k, v, the answer and each query's log of its sum; scores are made again on the way back."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, drop: Pieces | None
    ) -> Tensor:
        y, lse = run(q, k, v, plan, scale, drop)
        ctx.save_for_backward(q, k, v, y, lse)
        ctx.plan, ctx.scale, ctx.drop = plan, scale, drop
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, y, lse = ctx.saved_tensors
        made = gradients(q, k, v, y, lse, g, ctx.plan, ctx.scale, ctx.drop)
        return (*made, None, None, None)


def run(
    q: Heads, k: Heads, v: Heads, plan: Plan, scale: float, drop: Pieces | None
) -> tuple[Heads, Tensor]:
    """The answer, and log2 Σ exp of each query's scores, (B, H, T, 1)."""
    y = torch.empty(q.shape, dtype=plan.dtype)
    lse = torch.empty(*q.shape[:3], 1, dtype=plan.dtype)

    def answer(row: Row, heads: slice, own: list[Tensor]) -> None:
        qkv = (x[row.at, heads] for x in (q, k, v))
        Text(row, plan, scale, drop, heads, *qkv).answer(own[0], own[1])

    shared_out(plan, (y, lse), answer)
    return y, lse


def gradients(
    q: Heads,
    k: Heads,
    v: Heads,
    y: Heads,
    lse: Tensor,
    g: Heads,
    plan: Plan,
    scale: float,
    drop: Pieces | None,
) -> Three:
    dq, dk, dv = (torch.empty(x.shape, dtype=plan.dtype) for x in (q, k, v))

    def blame(row: Row, heads: slice, own: list[Tensor]) -> None:
        at = row.at, heads
        text = Text(row, plan, scale, drop, heads, *(x[at] for x in (q, k, v)))
        text.blame(y[at], lse[at], g[at].to(plan.dtype), (own[0], own[1], own[2]))

    shared_out(plan, (dq, dk, dv), blame)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def shared_out(plan: Plan, made: Sequence[Tensor], fill: Fill) -> None:
    """fill(text, heads, their parts of `made`) for all texts and heads, some for each thread; zeros where a text is empty."""
    H, some = made[0].shape[1], made[0].numel() > 0

    def work(part: range) -> None:
        for n, row in enumerate(plan.rows):
            begin, end = max(part.start - n * H, 0), min(part.stop - n * H, H)
            if begin >= end:
                continue
            heads = slice(begin, end)
            own = [x[row.at, heads] for x in made]
            if row.length and some:
                fill(row, heads, own)
            else:
                for x in own:
                    x.zero_()

    with torch.autocast("cpu", enabled=False):
        each(len(plan.rows) * H, work)


class Text:
    """Some heads of one text of a batch: q, k, v (H, T, D)."""

    def __init__(
        self,
        row: Row,
        plan: Plan,
        scale: float,
        drop: Pieces | None,
        heads: slice,
        *qkv: Tensor,
    ) -> None:
        self.row, self.shape, self.scale = row, plan.shape, scale
        self.q, self.k, self.v = (x.to(plan.dtype) for x in qkv)
        self.pieces, self.first = drop, heads.start
        drawn = plan.width(row) - plan.shape.w - len(row.shared)
        self.scratch = Scratch(plan.shape, drawn, len(row.shared), plan.dtype)

    def queries(self, lane: Lane, width: int) -> Queries:
        return Queries(lane, self.shape, width, self.k.dtype)

    def keys(self, lane: Lane, name: str) -> Keys:
        return Keys(lane, self.shape, self.k.shape[2], name, self.scratch)

    def slopes(self, lane: Lane) -> Slopes:
        return Slopes(lane, self.shape, self.k.shape[2], "gradient", self.scratch)

    def drop(self, h: int, lane: int) -> Drop | None:
        """The mask of the h-th of these heads and a lane; lane = WHOLE: of the queries that see all."""
        pieces = self.pieces
        if pieces is None:
            return None
        return lambda out, at: pieces.fill(out, self.row.at, self.first + h, lane, at)

    def answer(self, y: Tensor, lse: Tensor) -> None:
        """Fills y (H, T, D) and lse (H, T, 1)."""
        shared, D = [x[:, self.row.shared] for x in (self.k, self.v)], y.shape[2]
        for lane in self.row.lanes:
            q, out, sums = (self.queries(lane, n) for n in (D, D, 1))
            k, v = self.keys(lane, "k"), self.keys(lane, "v")
            for h in range(len(y)):
                q.fill(self.q[h], self.scale * LOG2E)
                k.fill(self.k[h], shared[0][h])
                v.fill(self.v[h], shared[1][h])
                forward(q, k, v, out, sums, self.drop(h, lane.start))
                out.give(y[h])
                sums.give(lse[h])
        for h, index in self.whole():
            s = self.looks(h, index)
            total, lse[h, index] = normal(s)
            if (drop := self.drop(h, WHOLE)) is not None:
                s.mul_(drop(torch.empty_like(s), int(index[0])))
            y[h, index] = torch.mm(s, self.v[h, : self.row.length]).div_(total)

    def blame(self, y: Tensor, lse: Tensor, g: Tensor, to: Three) -> None:
        """Fills the gradients of q, k and v from that of y."""
        shared, D = [x[:, self.row.shared] for x in (self.k, self.v)], y.shape[2]
        sums = [torch.zeros_like(x) for x in shared]
        for lane in self.row.lanes:
            q, gl, yl, dq, ll = (self.queries(lane, n) for n in (D, D, D, D, 1))
            k, v, known = self.keys(lane, "k"), self.keys(lane, "v"), Known(gl, yl, ll)
            dk, dv = self.slopes(lane), self.slopes(lane)
            for h in range(len(y)):
                q.fill(self.q[h], self.scale * LOG2E)
                k.fill(self.k[h], shared[0][h])
                v.fill(self.v[h], shared[1][h])
                dk.clear(sums[0][h])
                dv.clear(sums[1][h])
                for held, x in ((gl, g), (yl, y), (ll, lse)):
                    held.fill(x[h])
                gl.own.index_fill_(0, lane.full, 0.0)
                backward(q, k, v, known, dq, (dk, dv), self.drop(h, lane.start))
                dq.give(to[0][h])
                dk.give(to[1][h])
                dv.give(to[2][h])
        for x, s in zip(to[1:], sums, strict=True):
            x.index_add_(1, self.row.shared, s)
        for h, index in self.whole():
            self.blame_whole(h, index, (y[h, index], lse[h, index], g[h, index]), to)
        to[0].mul_(self.scale)
        to[1].div_(LOG2E)

    def blame_whole(self, h: int, index: Tensor, known: Three, to: Three) -> None:
        (y, lse, g), n, (dq, dk, dv) = known, self.row.length, to
        p = self.looks(h, index).sub_(lse).exp2_()
        drop = self.drop(h, WHOLE)
        kept = None if drop is None else drop(torch.empty_like(p), int(index[0]))
        dv[h, :n].addmm_(p.T if kept is None else (p * kept).T, g)
        ds = self.scratch.flat("slopes", len(index), n)
        torch.mm(g, self.v[h, :n].T, out=ds)
        ds = ds if kept is None else ds.mul_(kept)
        ds.sub_((g * y).sum(-1, keepdim=True)).mul_(p)
        dk[h, :n].addmm_(ds.T, self.q[h, index] * (self.scale * LOG2E))
        dq[h, index] = torch.mm(ds, self.k[h, :n])

    def whole(self) -> Iterator[tuple[int, Tensor]]:
        """Heads, and the queries that see all, as many together as memory should hold."""
        most = max(1, SCORES // self.row.length)
        for h in range(len(self.q)):
            for full in self.row.full:
                yield from ((h, part) for part in torch.split(full, most))

    def looks(self, h: int, index: Tensor) -> Tensor:
        """The scores of queries that see all, in bits: (queries, length)."""
        n = self.row.length
        s = self.scratch.flat("scores", len(index), n)
        torch.mm(self.q[h, index] * (self.scale * LOG2E), self.k[h, :n].T, out=s)
        if self.row.holes is not None:
            s += self.row.holes
        if self.row.causal:
            s.masked_fill_(torch.arange(n) > index[:, None], -torch.inf)
        return s
