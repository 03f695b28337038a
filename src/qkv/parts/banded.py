"""The kernel of sparse attention: one lane of one head, block after block, forward and backward.

Products over overlapping windows of one padded copy of the keys (a view with strides, never gathered); a chunk's scores
stay in the cache and are made again on the way back, so that memory is linear in the length."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .plan import Chunk, Lane, Shape

Three = tuple[Tensor, Tensor, Tensor]


class Scratch:
    """Room that every chunk of a text uses again: fresh memory costs as much as a product."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.held: dict[str, Tensor] = {}

    def room(self, name: str, *size: int) -> Tensor:
        """Of this size, its content left from the last use."""
        n = math.prod(size)
        if name not in self.held or len(self.held[name]) < n:
            self.held[name] = torch.empty(n, dtype=self.dtype)
        return self.held[name][:n].view(size)


class Queries:
    """One head's queries, or what belongs to them: x (blocks, b, D), zeros after the last."""

    def __init__(self, lane: Lane, shape: Shape, width: int, dtype: torch.dtype) -> None:
        self.x = torch.zeros(-(-lane.count // shape.b), shape.b, width, dtype=dtype)
        self.lane = lane

    def fill(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """factor · x, from (T, D)."""
        own = self.x.view(-1, x.shape[1])[: self.lane.count]
        torch.mul(x[self.lane.places], factor, out=own)
        return self.x

    def give(self, to: Tensor) -> None:
        """To where they belong in (T, D)."""
        to[self.lane.places] = self.x.view(-1, to.shape[1])[: self.lane.count]


class Keys:
    """What one head's queries look at: keys or values, or the gradient of either.

    x (left + blocks · b + right, D) with zeros around, and those that all may see, shared (G, D)."""

    def __init__(self, lane: Lane, shape: Shape, width: int, name: str, scratch: Scratch) -> None:
        self.n = -(-lane.count // shape.b)
        long = shape.left + self.n * shape.b + shape.right
        self.x = torch.zeros(long, width, dtype=scratch.dtype)
        self.lane, self.shape, self.name, self.scratch = lane, shape, name, scratch
        self.blocks = self.x[shape.left : long - shape.right].view(self.n, shape.b, width)
        self.own = self.x[shape.left : shape.left + lane.count]
        self.shared = self.x[:0]

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

    def windows(self, c: Chunk) -> Tensor:
        """(blocks, w, D), overlapping."""
        D, b = self.x.shape[1], self.shape.b
        return self.x.as_strided((c.size, self.shape.w, D), (b * D, D, 1), self.at(c.begin * b))

    def at(self, token: int) -> int:
        return token * self.x.shape[1]

    def gather(self, c: Chunk) -> None:
        """Make `drawn` those of this chunk."""
        if self.lane.drawn is not None:
            chosen = self.lane.drawn[c.begin : c.end].flatten()
            flat = self.blocks.view(self.n, -1)
            torch.index_select(flat, 0, chosen, out=self.room(c).view(len(chosen), -1))

    def room(self, c: Chunk) -> Tensor:
        """(blocks, random · b, D)."""
        tokens = 0 if self.lane.drawn is None else self.lane.drawn.shape[1] * self.shape.b
        return self.scratch.room(self.name, c.size, tokens, self.x.shape[1])

    def drawn(self, c: Chunk) -> Tensor | None:
        return None if self.lane.drawn is None else self.room(c)

    def spread(self, c: Chunk, band: Tensor) -> None:
        """Add the gradients of `windows` and `drawn` to where they came from."""
        b, D = self.shape.b, self.x.shape[1]
        for s in range(0, self.shape.w, b):
            part = band[:, s : s + b]
            strides, begin = (b * D, D, 1), self.at(c.begin * b + s)
            self.x.as_strided((c.size, part.shape[1], D), strides, begin).add_(part)
        if self.lane.drawn is not None:
            chosen = self.lane.drawn[c.begin : c.end].flatten()
            self.blocks.index_add_(0, chosen, self.room(c).view(-1, b, D))


def into(q: Tensor, k: Keys, c: Chunk, out: Tensor) -> Tensor:
    """q keysᵀ: (blocks, b, D) -> out (blocks, b, w + random + shared)."""
    w, drawn = k.shape.w, k.drawn(c)
    torch.bmm(q, k.windows(c).transpose(1, 2), out=out[:, :, :w])
    if drawn is not None:
        torch.bmm(q, drawn.transpose(1, 2), out=out[:, :, w : w + drawn.shape[1]])
    if len(k.shared):
        flat = out.view(-1, out.shape[2])[:, -len(k.shared) :]
        torch.mm(q.flatten(0, 1), k.shared.T, out=flat)
    return out


def outof(p: Tensor, v: Keys, c: Chunk, out: Tensor) -> None:
    """p values: (blocks, b, w + random + shared) -> out (blocks, b, D)."""
    w, drawn = v.shape.w, v.drawn(c)
    torch.bmm(p[:, :, :w], v.windows(c), out=out)
    if drawn is not None:
        out.baddbmm_(p[:, :, w : w + drawn.shape[1]], drawn)
    if len(v.shared):
        out.view(-1, out.shape[2]).addmm_(p.view(-1, p.shape[2])[:, -len(v.shared) :], v.shared)


def back(p: Tensor, g: Tensor, to: Keys, c: Chunk) -> None:
    """Add pᵀ g to the gradients of keys or values: p (blocks, b, …), g (blocks, b, D)."""
    w, drawn = to.shape.w, to.drawn(c)
    band = to.scratch.room("band", c.size, w, g.shape[2])
    torch.bmm(p[:, :, :w].transpose(1, 2), g, out=band)
    if drawn is not None:
        torch.bmm(p[:, :, w : w + drawn.shape[1]].transpose(1, 2), g, out=drawn)
    to.spread(c, band)
    if len(to.shared):
        flat = p.view(-1, p.shape[2])[:, -len(to.shared) :]
        to.shared.addmm_(flat.T, g.flatten(0, 1))


def scores(q: Tensor, k: Keys, c: Chunk, width: int) -> Tensor:
    """q kᵀ of a chunk, (blocks, b, width), -inf where nothing may be seen."""
    w, s = k.shape.w, k.scratch.room("scores", c.size, k.shape.b, width)
    k.gather(c)
    into(q, k, c, s)
    for at, edge in k.shape.edges:
        s[:, :, at : at + edge.shape[1]].add_(edge)
    if c.band is not None:
        s[:, :, :w].add_(c.band)
    if c.random is not None:
        s[:, :, w : w + c.random.shape[2]].add_(c.random)
    if c.shared is not None:
        s[:, :, -c.shared.shape[-1] :].add_(c.shared)
    return s


def normal(s: Tensor) -> tuple[Tensor, Tensor]:
    """Scores -> exp2(s - max) in place; their sums and log2 Σ exp2 s, (…, 1) each.

    A row of -inf alone becomes zeros, its sum 1, its logarithm 0."""
    top = s.amax(-1, keepdim=True)
    top.masked_fill_(top == -torch.inf, 0.0)
    total = s.sub_(top).exp2_().sum(-1, keepdim=True)
    total.masked_fill_(total == 0, 1.0)
    return total, total.log2().add_(top)


Drop = Callable[[Tensor, int], Tensor]  # fills a tensor with the mask of the piece of that number


def forward(
    q: Tensor, k: Keys, v: Keys, to: tuple[Tensor, Tensor], width: int, drop: Drop | None
) -> None:
    """q (blocks, b, D), scaled to bits -> the answer (blocks, b, D) and the logarithms (blocks, b, 1)."""
    for c in k.lane.chunks:
        here = slice(c.begin, c.end)
        s = scores(q[here], k, c, width)
        total, to[1][here] = normal(s)
        if drop is not None:
            s.mul_(drop(k.scratch.room("kept", *s.shape), c.begin))
        v.gather(c)
        outof(s, v, c, to[0][here])
        to[0][here].div_(total)


def backward(
    q: Tensor,
    k: Keys,
    v: Keys,
    known: Three,
    to: tuple[Tensor, Keys, Keys],
    width: int,
    drop: Drop | None,
) -> None:
    """The gradients of q, k and v added `to` where they belong; known: that of the answer, the answer, the logarithms.

    With p = exp2(q kᵀ - lse) and a mask m: dv = (m · p)ᵀ g, ds = p · (m · g vᵀ - Σ g y), dq = ds k, dk = dsᵀ q."""
    (g, y, lse), (dq, dk, dv) = known, to
    for c in k.lane.chunks:
        here = slice(c.begin, c.end)
        p = scores(q[here], k, c, width).sub_(lse[here]).exp2_()
        kept = None if drop is None else drop(k.scratch.room("kept", *p.shape), c.begin)
        room = k.scratch.room("slopes", *p.shape)
        back(p if kept is None else torch.mul(p, kept, out=room), g[here], dv, c)
        v.gather(c)
        ds = into(g[here], v, c, room)
        ds = ds if kept is None else ds.mul_(kept)
        ds.sub_((g[here] * y[here]).sum(-1, keepdim=True)).mul_(p)
        outof(ds, k, c, dq[here])
        back(ds, q[here], dk, c)
