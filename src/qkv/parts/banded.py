"""The kernel of sparse attention: one lane of one head, block after block, forward and backward.

Products over overlapping windows of one padded copy of the keys (a view with strides; `Gathered` copies what a block sees
into a row); a chunk's weights stay in the cache, and on the way back they are those that were kept, or made again.  All
views of scores are made once for all heads: there are as many of them as products, and each costs microseconds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .plan import Chunk, Lane, Shape

Drop = Callable[[torch.Size, int], Tensor]  # the mask of the piece of that number


@dataclass(frozen=True)
class Parts:
    """What belongs to all that the blocks of a chunk see, w + random + shared along one axis, and views of the three."""

    whole: Tensor
    band: Tensor
    drawn: Tensor | None
    shared: Tensor | None
    edges: tuple[tuple[Tensor, Tensor], ...] = ()  # of pairs: columns, and what their scores get

    @classmethod
    def of(cls, whole: Tensor, axis: int, w: int, drawn: int) -> "Parts":
        shared = whole.shape[axis] - w - drawn
        return cls(
            whole,
            whole.narrow(axis, 0, w),
            whole.narrow(axis, w, drawn) if drawn else None,
            whole.narrow(axis, w + drawn, shared) if shared else None,
        )


class Scratch:
    """Memory that every chunk of a text uses again: fresh memory costs as much as a product."""

    def __init__(
        self, shape: Shape, drawn: int, shared: int, sums: torch.dtype, fast: torch.dtype
    ) -> None:
        self.shape, self.drawn, self.sums, self.fast = shape, drawn, sums, fast
        self.width = shape.w + drawn + shared
        self.held: dict[tuple[str, torch.dtype], Tensor] = {}
        self.views: dict[tuple[str, torch.dtype, int], Parts] = {}

    def flat(self, name: str, dtype: torch.dtype, *size: int) -> Tensor:
        """Of this size, its content left from the last use."""
        n, at = math.prod(size), (name, dtype)
        if at not in self.held or len(self.held[at]) < n:
            self.held[at] = torch.empty(n, dtype=dtype)
            self.views = {key: made for key, made in self.views.items() if key[:2] != at}
        return self.held[at][:n].view(size)

    def pairs(self, name: str, dtype: torch.dtype, blocks: int) -> Parts:
        """Of a chunk's pairs (blocks, b, w + random + shared)."""
        at = name, dtype, blocks
        if at not in self.views:
            whole = self.flat(name, dtype, blocks, self.shape.b, self.width)
            edges = ((whole.narrow(2, i, edge.shape[1]), edge) for i, edge in self.shape.edges)
            made = Parts.of(whole, 2, self.shape.w, self.drawn)
            self.views[at] = replace(made, edges=tuple(edges))
        return self.views[at]

    def rows(self, name: str, dtype: torch.dtype, blocks: int, D: int) -> Parts:
        """Of all that a chunk's blocks see, (blocks, w + random + shared, D)."""
        whole = self.flat(name, dtype, blocks, self.width, D)
        return Parts.of(whole, 1, self.shape.w, self.drawn)

    def parts(self, whole: Tensor) -> Parts:
        """Of pairs (blocks, b, w + random + shared) that are held elsewhere."""
        return Parts.of(whole, 2, self.shape.w, self.drawn)


class Queries:
    """One head's queries, or what belongs to them: x (blocks, b, D), zeros after the last."""

    def __init__(self, lane: Lane, shape: Shape, width: int, dtype: torch.dtype) -> None:
        self.x = torch.zeros(lane.blocks(shape.b), shape.b, width, dtype=dtype)
        self.own = self.x.view(-1, width)[: lane.count]
        self.chunks = [self.x[c.begin : c.end] for c in lane.chunks]
        self.flat = [x.flatten(0, 1) for x in self.chunks]
        self.lane = lane

    def fill(self, x: Tensor, factor: float = 1.0) -> None:
        """With factor · x, from (T, D)."""
        self.own.copy_(x[self.lane.places])
        if factor != 1.0:
            self.own.mul_(factor)

    def give(self, to: Tensor) -> None:
        """To where they belong in (T, D)."""
        to[self.lane.places] = self.own


class Keys:
    """What one head's queries look at: keys or values, or the gradient of either.

    x (left + blocks · b + right, D) with zeros around; those that all may see, shared (G, D)."""

    def __init__(
        self, lane: Lane, width: int, name: str, scratch: Scratch, dtype: torch.dtype
    ) -> None:
        shape = scratch.shape
        n, b = lane.blocks(shape.b), shape.b
        self.x = torch.zeros(shape.left + n * b + shape.right, width, dtype=dtype)
        inner = self.x[shape.left : shape.left + n * b]
        self.own, self.blocks = inner[: lane.count], inner.view(n, b, width)
        self.lane, self.shape, self.scratch, self.name = lane, shape, scratch, name
        self.shared = self.x[:0]
        self.windows = [self.window(c, 0, shape.w) for c in lane.chunks]
        self.chosen = [  # the numbers of the drawn blocks
            None if lane.drawn is None else lane.drawn[c.begin : c.end].flatten()
            for c in lane.chunks
        ]
        self.make_room()

    def make_room(self) -> None:
        """For what is made of each chunk."""
        flat, D, drawn = self.scratch.flat, self.x.shape[1], self.scratch.drawn
        self.turned = [x.transpose(1, 2) for x in self.windows]
        self.drawn = [flat(self.name, self.x.dtype, c.size, drawn, D) for c in self.lane.chunks]

    def window(self, c: Chunk, first: int, width: int) -> Tensor:
        """Of every query block of the chunk, keys first … first + width - 1 of those it may see: (blocks, width, D)."""
        D, b = self.x.shape[1], self.shape.b
        return self.x.as_strided((c.size, width, D), (b * D, D, 1), (c.begin * b + first) * D)

    def fill(self, x: Tensor, shared: Tensor) -> None:
        """From (T, D); shared (G): which of them all may see."""
        self.own.copy_(x[self.lane.places])
        self.shared = x[shared].to(self.x.dtype)

    def gather(self, i: int) -> None:
        """Make chunk i ready for `into` and `outof`."""
        if (chosen := self.chosen[i]) is not None:
            drawn = self.drawn[i].view(len(chosen), *self.blocks.shape[1:])
            torch.index_select(self.blocks, 0, chosen, out=drawn)

    def into(self, q: Tensor, flat: Tensor, i: int, out: Parts) -> None:
        """q keysᵀ of chunk i: q (blocks, b, D) and the same flat."""
        torch.bmm(q, self.turned[i], out=out.band)
        if out.drawn is not None:
            torch.bmm(q, self.drawn[i].transpose(1, 2), out=out.drawn)
        if out.shared is not None:
            torch.mm(flat, self.shared.T, out=out.shared.flatten(0, 1))

    def outof(self, p: Parts, i: int, out: Tensor, flat: Tensor) -> None:
        """p values of chunk i, into out (blocks, b, D), and the same flat."""
        torch.bmm(p.band, self.windows[i], out=out)
        if p.drawn is not None:
            out.baddbmm_(p.drawn, self.drawn[i])
        if p.shared is not None:
            flat.addmm_(p.shared.flatten(0, 1), self.shared)


class Gathered(Keys):
    """Keys in bfloat16, which oneDNN multiplies slowly where windows overlap (docs/diary.md): all that a block sees is copied
    into a row, (blocks, w + random + shared, D), and one product does the work of three."""

    def make_room(self) -> None:
        D, chunks = self.x.shape[1], self.lane.chunks
        self.all = [self.scratch.rows(self.name, self.x.dtype, c.size, D) for c in chunks]

    def gather(self, i: int) -> None:
        rows, chosen = self.all[i], self.chosen[i]
        rows.band.copy_(self.windows[i])
        if rows.drawn is not None and chosen is not None:
            rows.drawn.copy_(self.blocks.index_select(0, chosen).view(rows.drawn.shape))
        if rows.shared is not None:
            rows.shared.copy_(self.shared)

    def into(self, q: Tensor, flat: Tensor, i: int, out: Parts) -> None:
        torch.bmm(q, self.all[i].whole.transpose(1, 2), out=out.whole)

    def outof(self, p: Parts, i: int, out: Tensor, flat: Tensor) -> None:
        product(p.whole, self.all[i].whole, out, self.scratch)


class Slopes(Keys):
    """The gradients of keys or values: what comes from windows and draws is added up where it belongs."""

    def make_room(self) -> None:
        super().make_room()
        flat, D, w = self.scratch.flat, self.x.shape[1], self.shape.w
        self.bands = [flat("band", self.x.dtype, c.size, w, D) for c in self.lane.chunks]
        self.moves = [self.moved(c, x) for c, x in zip(self.lane.chunks, self.bands, strict=True)]

    def moved(self, c: Chunk, band: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(where to, what): the parts of a band (blocks, w, D) that overlap with none of their own."""
        w, b = self.shape.w, self.shape.b
        cuts = [(s, min(b, w - s)) for s in range(0, w, b)]
        return [(self.window(c, s, n), band[:, s : s + n]) for s, n in cuts]

    def clear(self, shared: Tensor) -> None:
        """Zeros to add gradients to; those of the shared ones go to `shared` (G, D)."""
        self.x.zero_()
        self.shared = shared

    def give(self, to: Tensor) -> None:
        """To where they belong in (T, D), all but the shared ones."""
        to[self.lane.places] = self.own

    def add(self, i: int, p: Parts, g: Tensor, flat: Tensor) -> None:
        """Add pᵀ g: p of chunk i, g (blocks, b, D) and the same flat."""
        torch.bmm(p.band.transpose(1, 2), g, out=self.bands[i])
        for to, part in self.moves[i]:
            to.add_(part)
        if p.drawn is not None and (chosen := self.chosen[i]) is not None:
            drawn = torch.bmm(p.drawn.transpose(1, 2), g, out=self.drawn[i])
            self.blocks.index_add_(0, chosen, drawn.view(-1, *self.blocks.shape[1:]))
        if p.shared is not None:
            self.shared.addmm_(p.shared.flatten(0, 1).T, flat)


class GatheredSlopes(Slopes):
    """The same from one product in bfloat16, added up in the wider type of x."""

    def make_room(self) -> None:
        D, chunks = self.x.shape[1], self.lane.chunks
        self.all = [self.scratch.rows(self.name, self.x.dtype, c.size, D) for c in chunks]
        self.moves = [self.moved(c, rows.band) for c, rows in zip(chunks, self.all, strict=True)]

    def add(self, i: int, p: Parts, g: Tensor, flat: Tensor) -> None:
        rows, chosen = self.all[i], self.chosen[i]
        product(p.whole.transpose(1, 2), g, rows.whole, self.scratch)
        for to, part in self.moves[i]:
            to.add_(part)
        if rows.drawn is not None and chosen is not None:
            self.blocks.index_add_(0, chosen, rows.drawn.reshape(-1, *self.blocks.shape[1:]))
        if rows.shared is not None:
            self.shared.add_(rows.shared.sum(0))


def product(a: Tensor, b: Tensor, out: Tensor, scratch: Scratch) -> None:
    """out = a b, of many matrices, out of a wider type."""
    out.copy_(torch.bmm(a, b, out=scratch.flat("made", a.dtype, *out.shape)))


def weights(q: Queries, k: Keys, i: int, kept: Tensor | None) -> Parts:
    """softmax(q kᵀ) of chunk i, zeros where nothing may be seen, of the type to multiply with; q scaled.

    kept (the lane's blocks, b, w + random + shared): where they go; None: what holds them is used again."""
    c, scratch = k.lane.chunks[i], k.scratch
    s = scratch.pairs("weights", scratch.sums, c.size)
    k.gather(i)
    k.into(q.chunks[i], q.flat[i], i, s)
    for part, mask in (*s.edges, (s.band, c.band), (s.drawn, c.random), (s.shared, c.shared)):
        if part is not None and mask is not None:
            part.add_(mask)
    normal(s.whole, blind=c.band is not None)  # where all keys are real a query sees itself
    if kept is not None:
        made = scratch.parts(kept[c.begin : c.end])
    elif scratch.fast == scratch.sums:
        return s
    else:
        made = scratch.pairs("quick", scratch.fast, c.size)
    made.whole.copy_(s.whole)
    return made


def normal(s: Tensor, *, blind: bool) -> None:
    """Scores -> weights in place; blind: a row of -inf alone becomes zeros."""
    empty = s.amax(-1, keepdim=True) == -torch.inf if blind else None
    torch.softmax(s, -1, out=s)
    if empty is not None and bool(empty.any()):
        s.masked_fill_(empty, 0.0)


def slopes(p: Tensor, dp: Tensor) -> None:
    """The gradient of scores from that of their weights, in its place: p · (dp - Σ p dp)."""
    torch.ops.aten._softmax_backward_data.out(dp, p, -1, p.dtype, grad_input=dp)


def forward(
    q: Queries, k: Keys, v: Keys, y: Queries, drop: Drop | None, kept: Tensor | None
) -> None:
    """Fills the answers y (blocks, b, D), and `kept` where it is given; q scaled."""
    for i, c in enumerate(k.lane.chunks):
        p = weights(q, k, i, kept)
        if drop is not None:
            p = dropped(p, drop(p.whole.shape, c.begin), k.scratch)
        v.gather(i)
        v.outof(p, i, y.chunks[i], y.flat[i])


def dropped(p: Parts, mask: Tensor, scratch: Scratch) -> Parts:
    """m · p, in the place of slopes."""
    made = scratch.pairs("slopes", scratch.fast, len(p.whole))
    torch.mul(p.whole, mask, out=made.whole)
    return made


@dataclass(frozen=True)
class Fast:
    """What is multiplied on the way back: q (scaled), k, v, and the gradient g of the answers."""

    q: Queries
    k: Keys
    v: Keys
    g: Queries


def backward(
    q: Queries,
    k: Keys,
    fast: Fast,
    dq: Queries,
    to: tuple[Slopes, Slopes],
    drop: Drop | None,
    kept: Tensor | None,
) -> None:
    """Fills the gradient of q (scaled) and adds those of k and v to where they belong; kept: what `forward` filled.

    With p = softmax(q kᵀ) and a mask m: dv = (m · p)ᵀ g, dp = m · g vᵀ, ds = p · (dp - Σ p dp), dq = ds k, dk = dsᵀ q."""
    (dk, dv), scratch = to, k.scratch
    for i, c in enumerate(k.lane.chunks):
        g, flat, mask = fast.g.chunks[i], fast.g.flat[i], None
        p = weights(q, k, i, None) if kept is None else scratch.parts(kept[c.begin : c.end])
        used = p
        if drop is not None:
            mask = drop(p.whole.shape, c.begin)
            used = dropped(p, mask, scratch)
        dv.add(i, used, g, flat)
        ds = scratch.pairs("slopes", scratch.fast, c.size)
        fast.v.gather(i)
        fast.v.into(g, flat, i, ds)
        if mask is not None:
            ds.whole.mul_(mask)
        slopes(p.whole, ds.whole)
        if fast.k is not k or kept is not None:
            fast.k.gather(i)
        fast.k.outof(ds, i, dq.chunks[i], dq.flat[i])
        dk.add(i, ds, fast.q.chunks[i], fast.q.flat[i])
