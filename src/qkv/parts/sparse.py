"""Attention over patterns that are recognised, in time and memory linear in the length; `kernels.dense` is the slow twin.

For the way back the weights of a call that has few are kept, and else made again.  Every text of a batch is worked on by itself
and to its own length, so neighbours and padding change no bit (law 2)."""

import math
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
from .hardware import KEPT, add_product, multiplied
from .once import once
from .plan import Lane, Plan, Row
from .threads import each

SCORES = 1 << 20  # numbers of scores held at once for tokens that see all
WHOLE = 1 << 40  # stands for a lane among the masks' numbers
Three = tuple[Tensor, Tensor, Tensor]
Fill = Callable[[int, list[Tensor]], None]


def sparse(
    q: Heads, k: Heads, v: Heads, plan: Plan, *, scale: float, drop: Pieces | None = None
) -> Heads:
    """softmax(scale · q kᵀ) v over the pairs of the plan: q, k, v (B, H, T, D) -> (B, H, T, D) of the plan's type.

    drop: the mask by which weights are dropped."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        made: Tensor = Sparse.apply(q, k, v, plan, scale, drop)  # type: ignore[no-untyped-call]
        return made
    return run((q, k, v), plan, scale, drop, None)


class Sparse(torch.autograd.Function):
    """Remembers q, k and v, and of each text its weights (H, blocks, b, keys seen) where `room` is for them."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, drop: Pieces | None
    ) -> Tensor:
        kept = room(q, plan)
        ctx.save_for_backward(q, k, v, *(kept or ()))
        ctx.plan, ctx.scale, ctx.drop = plan, scale, drop
        return run((q, k, v), plan, scale, drop, kept)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        with torch.no_grad():
            made = gradients((q, k, v), g, ctx.plan, ctx.scale, ctx.drop, kept or None)
        return (*once(tuple(made), g, q, k, v), None, None, None)


def room(q: Heads, plan: Plan) -> list[Tensor] | None:
    """For the weights of every text of the plan; None where they are not kept."""
    b, H = plan.shape.b, q.shape[1]
    sizes = [(H, row.blocks(b), b, plan.width(row)) for row in plan.rows]
    if sum(map(math.prod, sizes)) > KEPT:
        return None
    return [torch.empty(size, dtype=multiplied(q.dtype, plan.dtype)) for size in sizes]


def run(
    qkv: Three, plan: Plan, scale: float, drop: Pieces | None, kept: list[Tensor] | None
) -> Heads:
    y = torch.empty(qkv[0].shape, dtype=plan.dtype)

    def begin(n: int) -> Fill:
        text = Text(plan.rows[n], plan, scale, drop, qkv)
        lanes = text.forth(None if kept is None else kept[n])
        return lambda h, own: text.answer(h, lanes, own[0])

    shared_out(plan, (y,), begin)
    return y


def gradients(
    qkv: Three, g: Heads, plan: Plan, scale: float, drop: Pieces | None, kept: list[Tensor] | None
) -> list[Tensor]:
    made = [torch.empty(x.shape, dtype=x.dtype) for x in qkv]

    def begin(n: int) -> Fill:
        row = plan.rows[n]
        text = Text(row, plan, scale, drop, qkv)
        lanes = text.back(None if kept is None else kept[n])
        return lambda h, own: text.blame(h, lanes, g[row.at, h], own)

    shared_out(plan, made, begin)
    return made


def shared_out(plan: Plan, made: Sequence[Tensor], begin: Callable[[int], Fill]) -> None:
    """begin(number of a text)(head, its parts of `made`) for all texts and heads, some for each thread; zeros where a text is
    empty."""
    H, some = made[0].shape[1], made[0].numel() > 0

    def work(numbers: Iterator[int]) -> None:
        at, fill = -1, None
        for number in numbers:
            n, h = divmod(number, H)
            row = plan.rows[n]
            own = [x[row.at, h] for x in made]
            if not (row.length and some):
                for x in own:
                    x.zero_()
                continue
            if at != n or fill is None:
                at, fill = n, begin(n)
            fill(h, own)

    with torch.autocast("cpu", enabled=False):
        each(len(plan.rows) * H, work)


@dataclass(frozen=True)
class Forth:
    """What the way forth works with in one lane, for one head after another."""

    lane: Lane
    q: Queries
    k: Keys
    v: Keys
    y: Queries
    kept: Sequence[Tensor | None]  # where the weights of each head go


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
    kept: Sequence[Tensor | None]  # the weights of each head


class Text:
    """One text of a batch, its heads one after the other: q, k, v (H, T, D)."""

    def __init__(self, row: Row, plan: Plan, scale: float, drop: Pieces | None, qkv: Three) -> None:
        self.row, self.shape, self.scale, self.pieces = row, plan.shape, scale, drop
        self.sums, self.dtype = plan.dtype, multiplied(qkv[0].dtype, plan.dtype)
        self.q, self.k, self.v = (x[row.at] for x in qkv)
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
        """The masks of head h and a lane; lane = WHOLE: of the queries that see all."""
        pieces = self.pieces
        if pieces is None:
            return None
        return lambda shape, at: pieces.fill(
            torch.empty(shape, dtype=self.sums), self.row.at, h, lane, at
        )

    def lanes(self, kept: Tensor | None) -> Iterator[tuple[Lane, Sequence[Tensor | None]]]:
        """Each lane with its part of `kept` (H, blocks, b, keys seen) for every head."""
        at, b = 0, self.shape.b
        for lane in self.row.lanes:
            n = lane.blocks(b)
            yield lane, [None] * len(self.q) if kept is None else kept[:, at : at + n].unbind()
            at += n

    def forth(self, kept: Tensor | None) -> list[Forth]:
        made = []
        for lane, weights in self.lanes(kept):
            q, y = (self.queries(lane, self.sums) for _ in range(2))
            k, v = self.keys(lane, "k", self.sums), self.keys(lane, "v", self.dtype)
            made.append(Forth(lane, q, k, v, y, weights))
        return made

    def answer(self, h: int, lanes: list[Forth], y: Tensor) -> None:
        """Fills the answers of one head, y (T, D)."""
        for own in lanes:
            own.q.fill(self.q[h], self.scale)
            own.k.fill(self.k[h], self.row.shared)
            own.v.fill(self.v[h], self.row.shared)
            forward(own.q, own.k, own.v, own.y, self.drop(h, own.lane.start), own.kept[h])
            own.y.give(y)
        for index in self.whole():
            p = self.looks(h, index)
            if (drop := self.drop(h, WHOLE)) is not None:
                p.mul_(drop(p.shape, int(index[0])))
            values = self.v[h, : self.row.length].to(self.dtype)
            y[index] = torch.mm(p.to(self.dtype), values).to(y.dtype)

    def back(self, kept: Tensor | None) -> list[Back]:
        made = []
        for lane, weights in self.lanes(kept):
            dq, g = self.queries(lane, self.sums), self.queries(lane, self.dtype)
            q, k = self.queries(lane, self.dtype), self.keys(lane, "k", self.dtype)
            fast = Fast(q, k, self.keys(lane, "v", self.dtype), g)
            if kept is None and self.dtype != self.sums:
                q, k = self.queries(lane, self.sums), self.keys(lane, "k", self.sums)
            made.append(Back(lane, q, k, fast, dq, *self.slopes(lane), weights))
        return made

    def blame(self, h: int, lanes: list[Back], g: Tensor, to: list[Tensor]) -> None:
        """Fills the gradients of one head's q, k and v from that of y, (T, D) each."""
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
            both, drop = (own.dk, own.dv), self.drop(h, own.lane.start)
            backward(own.q, own.k, fast, own.dq, both, drop, own.kept[h])
        made = self.together(lanes, g.shape)
        for x, s in zip(made[1:], sums, strict=True):
            x.index_add_(0, shared, s)
        for index in self.whole():
            self.blame_whole(h, index, g[index].to(self.dtype), made)
        made[0].mul_(self.scale)
        for x, found in zip(to, made, strict=True):
            x.copy_(found)

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
        add_product(dv[:n], (p if kept is None else (p * kept).to(p.dtype)).T, g)
        ds = self.scratch.flat("slopes", self.dtype, len(index), n)
        torch.mm(g, v[:n].T, out=ds)
        slopes(p, ds if kept is None else ds.mul_(kept))
        add_product(dk[:n], ds.T, q[index] * self.scale)
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
