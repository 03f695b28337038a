"""How a batch's sparse attention is cut into blocks: what `sparse` does for every head, worked out once for all layers.

A row of the batch is cut into lanes, one for each residue of a dilation (one alone without); a lane into blocks of b queries,
which look at w = left + b + right keys in a row, at drawn blocks (`random`) and at `shared` keys, the same for all.
Tokens that see everything are in `full`, and what their blocks gave them is written over."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from .forms import Form
from .rules import FAR, draws

AT_ONCE = 512  # queries whose scores are held together, so that they stay in a core's cache
WIDE = 64  # queries in a block of a band; `NARROW` where the band is narrower than that
NARROW = 32
SIXTEEN = 16  # shared keys are a multiple of this: scores begin at a vector's border
LEAST = 256  # shorter texts are the dense kernel's
DEAR = 1.5  # what a pair costs here, against one of the dense kernel's


def sides(form: Form) -> tuple[int, int, int]:
    """(b, left, right): the queries of a block, and how many keys they see before and after it."""
    if form.blocks is not None:
        b, reach = form.blocks.size, form.blocks.near * form.blocks.size
        return b, reach, 0 if form.causal else reach
    left, right = form.left // form.step, form.right // form.step
    return WIDE if left + right >= WIDE else NARROW, left, right


@dataclass(frozen=True)
class Shape:
    """Of the blocks: b queries, looking `left` and `right` of themselves; `edges` says what of these keys is not seen."""

    b: int
    left: int
    right: int
    edges: tuple[tuple[int, Tensor], ...]  # (first column, (b, columns) to add to scores)

    @property
    def w(self) -> int:
        return self.left + self.b + self.right

    @classmethod
    def of(cls, form: Form, dtype: torch.dtype) -> "Shape":
        b, left, right = sides(form)
        if form.blocks is not None:
            if not form.causal or b == 1:
                return cls(b, left, right, ())
            ahead = minus(torch.ones(b, b, dtype=torch.bool).triu(1), dtype)
            return cls(b, left, right, ((left, ahead),))
        y, x = torch.arange(b)[:, None], torch.arange(left + b + right)
        bad = (x < y) | (x > y + left + right)  # column x stands at x - left - y from query y
        if left + right < b:
            return cls(b, left, right, ((0, minus(bad, dtype)),))
        edges = (
            (0, minus(bad[:, :b], dtype)),
            (left + right, minus(bad[:, left + right :], dtype)),
        )
        return cls(b, left, right, edges)


@dataclass(frozen=True)
class Chunk:
    """Blocks [begin, end) of a lane, and what is to be added to their scores: None where nothing is."""

    begin: int
    end: int
    band: Tensor | None  # (blocks, 1, w)
    random: Tensor | None  # (blocks, 1, random · b)
    shared: Tensor | None  # (shared) or (blocks, b, shared)

    @property
    def size(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Lane:
    """The queries start, start + step, … of a row."""

    start: int
    step: int
    count: int  # of queries
    chunks: tuple[Chunk, ...]
    drawn: Tensor | None  # (blocks, random) int64
    full: Tensor  # those of its queries that see all

    @property
    def places(self) -> slice:
        return slice(self.start, None, self.step)

    def blocks(self, b: int) -> int:
        """Of b queries, the last one perhaps not full."""
        return -(-self.count // b)


@dataclass(frozen=True)
class Row:
    """One text: keys up to `length`, the last real one."""

    at: int
    length: int
    lanes: tuple[Lane, ...]
    shared: Tensor  # (G) int64: keys that all may see, and then zeros up to a multiple of 16
    full: tuple[Tensor, ...]  # queries that see all: the text's own, and those of its padding
    holes: (
        Tensor | None
    )  # (length) to be added to the scores of `full`, where a key before the last is not real
    causal: bool
    begin: int  # queries before this one are left to the dense kernel

    def blocks(self, b: int) -> int:
        return sum(lane.blocks(b) for lane in self.lanes)


def minus(bad: Tensor, dtype: torch.dtype) -> Tensor:
    """0 and -inf where bad."""
    return torch.zeros(bad.shape, dtype=dtype).masked_fill(bad, -torch.inf)


@dataclass(frozen=True)
class Text:
    """What of a batch concerns one row: keep and marked (T), and the length its pattern goes by."""

    at: int
    keep: Tensor
    marked: Tensor | None
    n: int

    @cached_property
    def length(self) -> int:
        """Tokens up to the last real one."""
        real = self.keep.nonzero()
        return int(real[-1]) + 1 if len(real) else 0

    def seeing(self, form: Form) -> Tensor:
        """(T) bool: tokens that see all and are seen by all."""
        here = torch.arange(len(self.keep))
        seen = here < form.first
        if form.blocks is not None:
            size, count = form.blocks.size, form.blocks.count(torch.tensor(self.n)).item()
            block = here // size
            seen |= block < form.blocks.first
            seen |= (block >= count - form.blocks.last) & (block < count)
        return seen if self.marked is None else seen | (self.marked & self.keep)


@dataclass(frozen=True)
class Plan:
    """The texts of a batch, cut alike."""

    rows: tuple[Row, ...]
    shape: Shape
    dtype: torch.dtype

    def width(self, row: Row) -> int:
        """Keys that a query looks at."""
        drawn = row.lanes[0].drawn if row.lanes else None
        more = 0 if drawn is None else drawn.shape[1] * self.shape.b
        return self.shape.w + more + len(row.shared)


def make(texts: Sequence[Text], form: Form, dtype: torch.dtype, *, split: bool) -> Plan | None:
    """None where the dense kernel is the faster one for all of them.

    split: every text for which it is has the queries of its own tokens left to it; the choice is one of each text by
    itself (law 2)."""
    pays = [text.length >= least(text, form) for text in texts]
    if not any(pays):  # before tables are made: a window may be far wider than any text
        return None
    shape = Shape.of(form, dtype)
    rows = (
        row(text, form, shape, dtype, 0 if pay or not split else up(text.length, SIXTEEN))
        for text, pay in zip(texts, pays, strict=True)
    )
    return Plan(tuple(rows), shape, dtype)


def least(text: Text, form: Form) -> int:
    """The length from which on blocks cost less than all pairs (docs/diary.md)."""
    seeing, size = int(text.seeing(form).sum()), sides(form)
    drawn = 0 if form.blocks is None else form.blocks.random * size[0]
    return max(LEAST, int(DEAR * (sum(size) + drawn + 2 * seeing)))


def up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def row(text: Text, form: Form, shape: Shape, dtype: torch.dtype, begin: int = 0) -> Row:
    """One text's work, from the query `begin` on.

    It does not depend on the other texts, and for real queries not on the padding (law 2)."""
    T, length, seeing = len(text.keep), text.length, text.seeing(form)
    shared = (seeing & text.keep).nonzero()[:, 0]
    full, whole = seeing.nonzero()[:, 0], bool(text.keep[:length].all())
    full = full[full >= begin]
    parts = tuple(f for f in (full[full < length], full[full >= length]) if len(f))
    cut = Cut(text, form, shape, dtype, seeing, shared, begin)
    lanes = tuple(cut.lane(start) for start in range(min(form.step, T)))
    holes = None if whole else minus(~text.keep[:length], dtype)
    return Row(text.at, length, lanes, cut.padded, parts, holes, form.causal, begin)


@dataclass(frozen=True)
class Cut:
    """A text about to be cut into lanes."""

    text: Text
    form: Form
    shape: Shape
    dtype: torch.dtype
    seeing: Tensor
    shared: Tensor
    begin: int

    @cached_property
    def padded(self) -> Tensor:
        """The shared keys, and zeros up to a multiple of 16."""
        return F.pad(self.shared, (0, -len(self.shared) % SIXTEEN))

    @cached_property
    def unused(self) -> Tensor:
        return torch.arange(len(self.padded)) >= len(self.shared)

    def lane(self, start: int) -> Lane:
        form, shape, step, b = self.form, self.shape, self.form.step, self.shape.b
        keys = (self.text.keep & ~self.seeing)[start::step]  # seen where band or draw say so
        count = len(keys)
        blocks = -(-count // b)
        bad = torch.ones(shape.left + blocks * b + shape.right, dtype=torch.bool)
        bad[shape.left : shape.left + count] = ~keys
        drawn = barred = None
        if form.blocks is not None and form.blocks.random and blocks:
            within = bad[shape.left : shape.left + blocks * b]
            drawn, barred = draw(form, self.text.n, blocks, within)
        real = -(-len(range(start, self.text.length, step)) // b)  # blocks with a real query
        done = self.seeing.clone()  # queries that are no concern of the band
        done[: self.begin] = True
        idle = torch.ones(blocks * b, dtype=torch.bool)
        idle[:count] = done[start::step]
        chunks = []
        for begin, end in pieces(real, idle.view(blocks, b).all(1).tolist(), max(1, AT_ONCE // b)):
            at = bad.as_strided((end - begin, 1, shape.w), (b, 1, 1), begin * b)
            off = None if barred is None else barred[begin:end, None]
            if not len(self.shared) and bool(at.all()) and (off is None or bool(off.all())):
                continue  # nothing to be seen
            band = minus(at, self.dtype) if bool(at.any()) else None
            random = None if off is None or not bool(off.any()) else minus(off, self.dtype)
            i = start + torch.arange(begin * b, end * b).view(-1, b, 1) * step
            chunks.append(Chunk(begin, end, band, random, self.ahead(i)))
        full = self.seeing[start::step].nonzero()[:, 0]
        return Lane(start, step, count, tuple(chunks), drawn, full)

    def ahead(self, i: Tensor) -> Tensor | None:
        """What to add to the scores of shared keys and queries at i (blocks, b, 1)."""
        bad = self.unused
        if self.form.causal and len(self.shared) and int(self.shared[-1]) > int(i[0, 0]):
            bad = (self.padded > i) | bad
        return minus(bad, self.dtype) if bool(bad.any()) else None


def pieces(real: int, idle: list[bool], most: int) -> Iterator[tuple[int, int]]:
    """The blocks before `real`, and then those of padding, in runs of at most `most` that leave out idle ones.

    What is padded does not change how a text is cut."""
    begin = 0
    for at in range(len(idle) + 1):
        if at == len(idle) or idle[at] or at == real or at - begin == most:
            if begin < at:
                yield begin, at
            begin = at + 1 if at < len(idle) and idle[at] else at


def draw(form: Form, n: int, blocks: int, bad: Tensor) -> tuple[Tensor, Tensor]:
    """The drawn blocks (blocks, random), and which of their tokens are not seen (blocks, random · b)."""
    rule = form.blocks
    if rule is None:
        raise ValueError("no blocks to draw from")
    count = blocks if rule.past else int(rule.count(torch.tensor(n)))
    table = draws(rule, count)[:blocks]
    none = table.new_full((blocks - len(table), table.shape[1]), FAR)
    table = torch.cat([table, none])
    out = table >= blocks
    if form.causal:
        out = out | (table > torch.arange(blocks)[:, None])
    table = table.masked_fill(out, 0)
    tokens = bad.view(blocks, -1)[table] | out[:, :, None]
    return table, tokens.flatten(1)
