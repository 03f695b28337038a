"""Attention over patterns that are recognised, in time and memory linear in the length; `kernels.dense` is the slow twin.

Every text of a batch is worked on by itself and to its own length, so neighbours and padding change no bit (law 2)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..shapes import Heads
from .banded import (
    Drop,
    Fast,
    Gathered,
    GatheredSlopes,
    Keys,
    Queries,
    Scratch,
    Slopes,
    backward,
    forward,
    normal,
    slopes,
)
from .dropout import Pieces
from .hardware import has_bf16
from .plan import Lane, Plan, Row
from .threads import each

SCORES = 1 << 20  # numbers of scores held at once for tokens that see all
WHOLE = 1 << 40  # stands for a lane among the masks' numbers
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
    return run(q, k, v, plan, scale, drop)


class Sparse(torch.autograd.Function):
    """Remembers q, k and v alone; weights are made again on the way back."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, drop: Pieces | None
    ) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.plan, ctx.scale, ctx.drop = plan, scale, drop
        return run(q, k, v, plan, scale, drop)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v = ctx.saved_tensors
        made = gradients(q, k, v, g, ctx.plan, ctx.scale, ctx.drop)
        return (*made, None, None, None)


def run(q: Heads, k: Heads, v: Heads, plan: Plan, scale: float, drop: Pieces | None) -> Heads:
    y = torch.empty(q.shape, dtype=plan.dtype)

    def answer(row: Row, heads: slice, own: list[Tensor]) -> None:
        qkv = (x[row.at, heads] for x in (q, k, v))
        Text(row, plan, scale, drop, heads, *qkv).answer(own[0])

    shared_out(plan, (y,), answer)
    return y


def gradients(
    q: Heads, k: Heads, v: Heads, g: Heads, plan: Plan, scale: float, drop: Pieces | None
) -> Three:
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))

    def blame(row: Row, heads: slice, own: list[Tensor]) -> None:
        at = row.at, heads
        text = Text(row, plan, scale, drop, heads, *(x[at] for x in (q, k, v)))
        text.blame(g[at], (own[0], own[1], own[2]))

    shared_out(plan, (dq, dk, dv), blame)
    return dq, dk, dv


def multiplied(of: torch.dtype, sums: torch.dtype) -> torch.dtype:
    """The type of products of texts of type `of`, all but that of the scores."""
    half = of == torch.bfloat16 and has_bf16(torch.device("cpu"))
    return of if half else sums


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


@dataclass(frozen=True)
class Back:
    """What the way back works with in one lane, for one head after another."""

    lane: Lane
    q: Queries
    k: Keys
    fast: Fast
    dq: Queries
    dk: Slopes
    dv: Slopes


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
        self.sums, self.dtype = plan.dtype, multiplied(qkv[0].dtype, plan.dtype)
        self.q, self.k, self.v = qkv
        self.pieces, self.first = drop, heads.start
        drawn = plan.width(row) - plan.shape.w - len(row.shared)
        self.scratch = Scratch(plan.shape, drawn, len(row.shared), self.sums, self.dtype)

    def queries(self, lane: Lane, dtype: torch.dtype) -> Queries:
        return Queries(lane, self.shape, self.k.shape[2], dtype)

    def keys(self, lane: Lane, name: str, dtype: torch.dtype) -> Keys:
        kind = Keys if dtype == self.sums else Gathered
        return kind(lane, self.k.shape[2], name, self.scratch, dtype)

    def slopes(self, lane: Lane) -> tuple[Slopes, Slopes]:
        kind = Slopes if self.dtype == self.sums else GatheredSlopes
        dk, dv = (kind(lane, self.k.shape[2], "gradient", self.scratch, self.sums) for _ in "kv")
        return dk, dv

    def drop(self, h: int, lane: int) -> Drop | None:
        """The masks of the h-th of these heads and a lane; lane = WHOLE: of the queries that see all."""
        pieces = self.pieces
        if pieces is None:
            return None
        return lambda shape, at: pieces.fill(
            torch.empty(shape, dtype=self.sums), self.row.at, self.first + h, lane, at
        )

    def answer(self, y: Tensor) -> None:
        """Fills y (H, T, D)."""
        shared = self.row.shared
        for lane in self.row.lanes:
            q, out = (self.queries(lane, self.sums) for _ in range(2))
            k, v = self.keys(lane, "k", self.sums), self.keys(lane, "v", self.dtype)
            for h in range(len(y)):
                q.fill(self.q[h], self.scale)
                k.fill(self.k[h], shared)
                v.fill(self.v[h], shared)
                forward(q, k, v, out, self.drop(h, lane.start))
                out.give(y[h])
        for h in range(len(y)):
            for index in self.whole():
                p = self.looks(h, index)
                if (drop := self.drop(h, WHOLE)) is not None:
                    p.mul_(drop(p.shape, int(index[0])))
                values = self.v[h, : self.row.length].to(self.dtype)
                y[h, index] = torch.mm(p.to(self.dtype), values).to(y.dtype)

    def blame(self, g: Tensor, to: Three) -> None:
        """Fills the gradients of q, k and v from that of y."""
        lanes = [self.back(lane) for lane in self.row.lanes]
        for h in range(len(g)):
            made = self.blame_head(h, g[h], lanes)
            for x, own in zip(to, made, strict=True):
                x[h] = own

    def back(self, lane: Lane) -> Back:
        q, dq = (self.queries(lane, self.sums) for _ in range(2))
        k, v = self.keys(lane, "k", self.sums), self.keys(lane, "v", self.dtype)
        k1, q1 = k, q
        if self.dtype != self.sums:
            k1, q1 = self.keys(lane, "k", self.dtype), self.queries(lane, self.dtype)
        fast = Fast(q1, k1, v, self.queries(lane, self.dtype))
        return Back(lane, q, k, fast, dq, *self.slopes(lane))

    def blame_head(self, h: int, g: Tensor, lanes: list[Back]) -> list[Tensor]:
        """The gradients of one head's q, k and v, (T, D) each, in memory that the next head uses again."""
        shared = self.row.shared
        sums = [g.new_zeros(len(shared), g.shape[1], dtype=self.sums) for _ in range(2)]
        for own in lanes:
            fast = own.fast
            fast.q.fill(self.q[h], self.scale)
            fast.k.fill(self.k[h], shared)
            fast.v.fill(self.v[h], shared)
            if own.k is not fast.k:
                own.q.fill(self.q[h], self.scale)
                own.k.fill(self.k[h], shared)
            fast.g.fill(g)
            fast.g.own.index_fill_(0, own.lane.full, 0.0)
            own.dk.clear(sums[0])
            own.dv.clear(sums[1])
            backward(own.q, own.k, fast, own.dq, (own.dk, own.dv), self.drop(h, own.lane.start))
        made = self.together(lanes, g.shape)
        for x, s in zip(made[1:], sums, strict=True):
            x.index_add_(0, shared, s)
        for index in self.whole():
            self.blame_whole(h, index, g[index].to(self.dtype), made)
        made[0].mul_(self.scale)
        return made

    def together(self, lanes: list[Back], shape: torch.Size) -> list[Tensor]:
        """What the lanes have found, each where it belongs."""
        if len(lanes) == 1:
            return [x.own for x in (lanes[0].dq, lanes[0].dk, lanes[0].dv)]
        made = [self.scratch.flat(name, self.sums, *shape) for name in ("dq", "dk", "dv")]
        for own in lanes:
            own.dq.give(made[0])
            own.dk.give(made[1])
            own.dv.give(made[2])
        return made

    def blame_whole(self, h: int, index: Tensor, g: Tensor, to: list[Tensor]) -> None:
        n, (dq, dk, dv) = self.row.length, to
        q, k, v = (x[h].to(self.dtype) for x in (self.q, self.k, self.v))
        p, drop = self.looks(h, index).to(self.dtype), self.drop(h, WHOLE)
        kept = None if drop is None else drop(p.shape, int(index[0]))
        dv[:n] += torch.mm((p if kept is None else (p * kept).to(p.dtype)).T, g)
        ds = self.scratch.flat("slopes", self.dtype, len(index), n)
        torch.mm(g, v[:n].T, out=ds)
        slopes(p, ds if kept is None else ds.mul_(kept))
        dk[:n] += torch.mm(ds.T, q[index] * self.scale)
        dq[index] = torch.mm(ds, k[:n]).to(dq.dtype)

    def whole(self) -> Iterator[Tensor]:
        """The queries that see all, as many together as memory should hold."""
        most = max(1, SCORES // self.row.length)
        for full in self.row.full:
            yield from torch.split(full, most)

    def looks(self, h: int, index: Tensor) -> Tensor:
        """The weights of queries that see all, (queries, length)."""
        n = self.row.length
        s = self.scratch.flat("weights", self.sums, len(index), n)
        q, k = (x.to(self.sums) for x in (self.q[h, index], self.k[h, :n]))
        torch.mm(q * self.scale, k.T, out=s)
        if self.row.holes is not None:
            s += self.row.holes
        if self.row.causal:
            s.masked_fill_(torch.arange(n) > index[:, None], -torch.inf)
        normal(s, blind=self.row.holes is not None)  # a token that sees all sees the last one
        return s
