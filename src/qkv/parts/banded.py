"""The kernel of sparse attention: one lane of one head, block after block, forward and backward.

Products over overlapping windows of one padded copy of the keys (a view with strides, never gathered); a chunk's scores
stay in the cache and are made again on the way back, so that memory is linear in the length.  All views are made once for
all heads: there are as many of them as products, and each costs microseconds."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .plan import Chunk, Lane, Shape

Three = tuple[Tensor, Tensor, Tensor]
Drop = Callable[[Tensor, int], Tensor]  # fills a tensor with the mask of the piece of that number


@dataclass(frozen=True)
class Room:
    """Numbers of a chunk's pairs (blocks, b, w + random + shared), and views of the three parts of it."""

    whole: Tensor
    band: Tensor  # (blocks, b, w)
    drawn: Tensor | None  # (blocks, b, random)
    shared: Tensor | None  # (blocks · b, shared)

    @classmethod
    def of(cls, whole: Tensor, w: int, drawn: int) -> "Room":
        rest = whole.flatten(0, 1)[:, w + drawn :]
        return cls(
            whole,
            whole[:, :, :w],
            whole[:, :, w : w + drawn] if drawn else None,
            rest if rest.shape[1] else None,
        )


class Scratch:
    """Memory that every chunk of a text uses again: fresh memory costs as much as a product."""

    def __init__(self, shape: Shape, drawn: int, shared: int, dtype: torch.dtype) -> None:
        self.shape, self.drawn, self.dtype = shape, drawn, dtype
        self.width = shape.w + drawn + shared
        self.held: dict[str, Tensor] = {}
        self.views: dict[tuple[str, int], Room] = {}

    def flat(self, name: str, *size: int) -> Tensor:
        """Of this size, its content left from the last use."""
        n = math.prod(size)
        if name not in self.held or len(self.held[name]) < n:
            self.held[name] = torch.empty(n, dtype=self.dtype)
            self.views = {at: room for at, room in self.views.items() if at[0] != name}
        return self.held[name][:n].view(size)

    def room(self, name: str, blocks: int) -> Room:
        at = name, blocks
        if at not in self.views:
            whole = self.flat(name, blocks, self.shape.b, self.width)
            self.views[at] = Room.of(whole, self.shape.w, self.drawn)
        return self.views[at]


class Queries:
    """One head's queries, or what belongs to them: x (blocks, b, D), zeros after the last."""

    def __init__(self, lane: Lane, shape: Shape, width: int, dtype: torch.dtype) -> None:
        self.x = torch.zeros(-(-lane.count // shape.b), shape.b, width, dtype=dtype)
        self.own = self.x.view(-1, width)[: lane.count]
        self.chunks = [self.x[c.begin : c.end] for c in lane.chunks]
        self.flat = [x.flatten(0, 1) for x in self.chunks]
        self.lane = lane

    def fill(self, x: Tensor, factor: float = 1.0) -> None:
        """With factor · x, from (T, D)."""
        torch.mul(x[self.lane.places], factor, out=self.own)

    def give(self, to: Tensor) -> None:
        """To where they belong in (T, D)."""
        to[self.lane.places] = self.own


class Keys:
    """What one head's queries look at: keys or values, or the gradient of either.

    x (left + blocks · b + right, D) with zeros around; those that all may see, shared (G, D); the drawn ones of a chunk are
    gathered into room of that name."""

    def __init__(self, lane: Lane, shape: Shape, width: int, name: str, scratch: Scratch) -> None:
        n, b = -(-lane.count // shape.b), shape.b
        self.x = torch.zeros(shape.left + n * b + shape.right, width, dtype=scratch.dtype)
        inner = self.x[shape.left : shape.left + n * b]
        self.own, self.blocks = inner[: lane.count], inner.view(n, b, width)
        self.rows = inner.view(n, b * width)
        self.lane, self.shape, self.scratch, self.shared = lane, shape, scratch, self.x[:0]
        self.windows = [self.window(c, 0, shape.w) for c in lane.chunks]
        self.turned = [x.transpose(1, 2) for x in self.windows]
        self.chosen = [
            None if lane.drawn is None else lane.drawn[c.begin : c.end].flatten()
            for c in lane.chunks
        ]
        self.drawn = [
            None if x is None else scratch.flat(name, c.size, len(x) // c.size * b, width)
            for c, x in zip(lane.chunks, self.chosen, strict=True)
        ]

    def window(self, c: Chunk, first: int, width: int) -> Tensor:
        """Of every query block of the chunk, keys first … first + width - 1 of those it may see: (blocks, width, D)."""
        D, b = self.x.shape[1], self.shape.b
        return self.x.as_strided((c.size, width, D), (b * D, D, 1), (c.begin * b + first) * D)

    def fill(self, x: Tensor, shared: Tensor) -> None:
        """From (T, D), and those that are shared, (G, D)."""
        self.own.copy_(x[self.lane.places])
        self.shared = shared

    def clear(self, shared: Tensor) -> None:
        """Zeros to add gradients to; those of the shared ones go to `shared` (G, D)."""
        self.x.zero_()
        self.shared = shared

    def give(self, to: Tensor) -> None:
        """To where they belong in (T, D), all but the shared ones."""
        to[self.lane.places] = self.own

    def gather(self, i: int) -> None:
        """Make `drawn` hold those of chunk i."""
        chosen, drawn = self.chosen[i], self.drawn[i]
        if chosen is not None and drawn is not None:
            torch.index_select(self.rows, 0, chosen, out=drawn.view(len(chosen), -1))


class Slopes(Keys):
    """The gradients of keys or values: what comes from windows and draws is added up where it belongs."""

    def __init__(self, lane: Lane, shape: Shape, width: int, name: str, scratch: Scratch) -> None:
        super().__init__(lane, shape, width, name, scratch)
        self.bands = [scratch.flat("band", c.size, shape.w, width) for c in lane.chunks]
        cuts = [(s, min(shape.b, shape.w - s)) for s in range(0, shape.w, shape.b)]
        self.moves = [
            [(self.window(c, s, n), band[:, s : s + n]) for s, n in cuts]
            for c, band in zip(lane.chunks, self.bands, strict=True)
        ]

    def add(self, i: int, p: Room, g: Tensor, flat: Tensor) -> None:
        """Add pᵀ g: p of chunk i, g (blocks, b, D) and the same flat."""
        torch.bmm(p.band.transpose(1, 2), g, out=self.bands[i])
        for to, part in self.moves[i]:
            to.add_(part)
        chosen, drawn = self.chosen[i], self.drawn[i]
        if p.drawn is not None and chosen is not None and drawn is not None:
            torch.bmm(p.drawn.transpose(1, 2), g, out=drawn)
            self.blocks.index_add_(0, chosen, drawn.view(-1, *self.blocks.shape[1:]))
        if p.shared is not None:
            self.shared.addmm_(p.shared.T, flat)


def into(q: Tensor, flat: Tensor, k: Keys, i: int, out: Room) -> None:
    """q keysᵀ of chunk i: q (blocks, b, D) and the same flat."""
    torch.bmm(q, k.turned[i], out=out.band)
    drawn = k.drawn[i]
    if out.drawn is not None and drawn is not None:
        torch.bmm(q, drawn.transpose(1, 2), out=out.drawn)
    if out.shared is not None:
        torch.mm(flat, k.shared.T, out=out.shared)


def outof(p: Room, v: Keys, i: int, out: Tensor, flat: Tensor) -> None:
    """p values of chunk i, into out (blocks, b, D), and the same flat."""
    torch.bmm(p.band, v.windows[i], out=out)
    drawn = v.drawn[i]
    if p.drawn is not None and drawn is not None:
        out.baddbmm_(p.drawn, drawn)
    if p.shared is not None:
        flat.addmm_(p.shared, v.shared)


def scores(q: Queries, k: Keys, i: int) -> Room:
    """q kᵀ of chunk i, -inf where nothing may be seen."""
    c = k.lane.chunks[i]
    s = k.scratch.room("scores", c.size)
    k.gather(i)
    into(q.chunks[i], q.flat[i], k, i, s)
    for at, edge in k.shape.edges:
        s.whole[:, :, at : at + edge.shape[1]].add_(edge)
    if c.band is not None:
        s.band.add_(c.band)
    if c.random is not None and s.drawn is not None:
        s.drawn.add_(c.random)
    if c.shared is not None and s.shared is not None:
        s.whole[:, :, -c.shared.shape[-1] :].add_(c.shared)
    return s


def normal(s: Tensor) -> tuple[Tensor, Tensor]:
    """Scores -> exp2(s - max) in place; their sums and log2 Σ exp2 s, (…, 1) each.

    A row of -inf alone becomes zeros, its sum 1, its logarithm 0."""
    top = s.amax(-1, keepdim=True)
    top.masked_fill_(top == -torch.inf, 0.0)
    total = s.sub_(top).exp2_().sum(-1, keepdim=True)
    total.masked_fill_(total == 0, 1.0)
    return total, total.log2().add_(top)


def forward(q: Queries, k: Keys, v: Keys, y: Queries, lse: Queries, drop: Drop | None) -> None:
    """Fills the answers y (blocks, b, D) and the logarithms lse (blocks, b, 1); q scaled to bits."""
    for i, c in enumerate(k.lane.chunks):
        s = scores(q, k, i)
        total, lse.chunks[i][:] = normal(s.whole)
        if drop is not None:
            s.whole.mul_(drop(k.scratch.flat("kept", *s.whole.shape), c.begin))
        v.gather(i)
        outof(s, v, i, y.chunks[i], y.flat[i])
        y.chunks[i].div_(total)


@dataclass(frozen=True)
class Known:
    """Of one head, on the way back: g the gradient of the answer y, and the logarithms."""

    g: Queries
    y: Queries
    lse: Queries


def backward(
    q: Queries, k: Keys, v: Keys, known: Known, dq: Queries, to: tuple[Slopes, Slopes], drop: Drop | None
) -> None:  # fmt: skip
    """Fills the gradient of q and adds those of k and v to where they belong.

    With p = exp2(q kᵀ - lse) and a mask m: dv = (m · p)ᵀ g, ds = p · (m · g vᵀ - Σ g y), dq = ds k, dk = dsᵀ q."""
    dk, dv = to
    for i, c in enumerate(k.lane.chunks):
        g, flat, p = known.g.chunks[i], known.g.flat[i], scores(q, k, i)
        p.whole.sub_(known.lse.chunks[i]).exp2_()
        ds, kept = k.scratch.room("slopes", c.size), None
        if drop is None:
            dv.add(i, p, g, flat)
        else:
            kept = drop(k.scratch.flat("kept", *p.whole.shape), c.begin)
            torch.mul(p.whole, kept, out=ds.whole)
            dv.add(i, ds, g, flat)
        v.gather(i)
        into(g, flat, v, i, ds)
        if kept is not None:
            ds.whole.mul_(kept)
        ds.whole.sub_((g * known.y.chunks[i]).sum(-1, keepdim=True)).mul_(p.whole)
        outof(ds, k, i, dq.chunks[i], dq.flat[i])
        dk.add(i, ds, q.chunks[i], q.flat[i])
