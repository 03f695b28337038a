"""Who may look at whom.  Patterns are frozen values joined by & and |; `mask(T, S)` is their dense truth.

`Allowed` couples a pattern with the padding of a batch; it is what `attend` asks for, and is never optional."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from ..shapes import Keep, Mask
from .forms import form
from .plan import Plan, Text, make
from .rules import Blocks as Blocks
from .rules import Both as Both
from .rules import Causal as Causal
from .rules import Dilated as Dilated
from .rules import Either as Either
from .rules import Full as Full
from .rules import Global as Global
from .rules import Pattern as Pattern
from .rules import Window as Window
from .rules import causal as causal
from .spelling import parse as parse
from .spelling import spelled as spelled


@dataclass(frozen=True, eq=False)
class Allowed:
    """A pattern and the padding of a batch: the pairs (query, key) that may meet.

    `positions` of the queries among the keys: (T) shared by all rows, or (B, T) when rows stand at different places.
    `group` (B, S) where several documents share a row: a token sees those of its own only, and the pattern counts from
    the beginning of each; then T = S.
    `marked` (B, S): tokens chosen by the user, which see all and are seen by all, where the pattern does not forbid to
    look ahead.
    `ends` (B): where each text ends, for patterns that ask; None: after its last real token."""

    pattern: Pattern
    keep: Keep  # (B, S)
    positions: Tensor  # (T) or (B, T) int64
    group: Tensor | None = None  # (B, S) int64
    marked: Keep | None = None  # (B, S)
    ends: Tensor | None = None  # (B) int64

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        keep: Keep,
        T: int | None = None,
        group: Tensor | None = None,
        marked: Keep | None = None,
    ) -> Self:
        """For queries at 0 … T-1; T defaults to the number of keys."""
        T = keep.shape[1] if T is None else T
        return cls(pattern, keep, torch.arange(T, device=keep.device), group, marked)

    @cached_property
    def lengths(self) -> Tensor:
        """(B): tokens of each row up to its last real one, or up to `ends`."""
        if self.ends is not None:
            return self.ends
        here = torch.arange(1, self.keep.shape[1] + 1, device=self.keep.device)
        return (self.keep * here).amax(1) if self.keep.shape[1] else self.keep.sum(1)

    @cached_property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of queries (1 or B, T, 1), of keys (1 or B, 1, S), and the text's length (B, 1 or T, 1), as the pattern counts."""
        if self.group is not None:
            at = restarted(self.group)
            return at[:, :, None], at[:, None], extent(self.group, self.keep)[:, :, None]
        i = self.positions if self.positions.dim() == 2 else self.positions[None]
        j = torch.arange(self.keep.shape[1], device=self.keep.device)
        return i[:, :, None], j[None, None], self.lengths[:, None, None]

    @cached_property
    def mask(self) -> Mask:
        i, j, n = self.places
        pairs = self.pattern.allowed(i, j, n)  # (1 or B, T, S)
        if self.marked is not None:
            marked, S = self.marked & self.keep, self.keep.shape[1]
            at = self.positions.expand(len(marked), -1)
            rows = marked.gather(1, at.clamp(max=S - 1)) & (at < S)
            marks = rows[:, :, None] | marked[:, None]
            pairs = pairs | (marks & (j <= i) if causal(self.pattern) else marks)
        if self.group is not None:
            pairs = pairs & (self.group[:, :, None] == self.group[:, None])
        return (pairs & self.keep[:, None]).unsqueeze(1)  # (B, 1, T, S)

    def dense(self) -> Mask:
        """The boolean truth (B, 1, T, S), True = may look."""
        return self.mask

    @cached_property
    def hidden(self) -> Mask:
        """What may not be looked at (B, 1, T, S): the other side of `mask`."""
        return ~self.mask

    @cached_property
    def triangle(self) -> bool:
        """True where the mask is j <= i for all rows, and nothing else: kernels know that one without being shown."""
        if self.pattern != Causal() or self.group is not None or self.positions.dim() != 1:
            return False
        if torch.compiler.is_compiling():  # a compiled graph does not depend on values
            return False
        here = torch.arange(self.keep.shape[1], device=self.keep.device)
        return torch.equal(self.positions, here) and bool(self.keep.all())

    @cached_property
    def _plans(self) -> dict[tuple[torch.dtype, bool], Plan | None]:
        return {}

    def plan(self, dtype: torch.dtype, *, split: bool) -> Plan | None:
        """How `sparse` works on it; None where no kernel knows the pattern, or the dense one is faster.  Made once per batch.

        split: texts for which the dense kernel is faster are left to it, one by one."""
        key = dtype, split
        if key not in self._plans:
            known = form(self.pattern)
            fits = known is not None and self.sparse
            self._plans[key] = (
                make(self.texts, known, dtype, split=split) if known and fits else None
            )
        return self._plans[key]

    @cached_property
    def sparse(self) -> bool:
        """Is it a pattern that kernels know, over whole texts?"""
        known = form(self.pattern)
        return known is not None and known.sparse and self.whole

    @cached_property
    def flexible(self) -> object:
        """The same for flex_attention: a BlockMask, made once per batch."""
        from torch.nn.attention.flex_attention import create_block_mask

        from .flex import mask_mod

        B, T = len(self.keep), len(self.positions)
        return create_block_mask(mask_mod(self), B, None, T, T, device=self.keep.device)

    @property
    def whole(self) -> bool:
        """Do the queries stand at 0, 1, 2 …, and is there no key beyond them?"""
        if self.group is not None or self.positions.dim() != 1 or torch.compiler.is_compiling():
            return False
        T = len(self.positions)
        if T > self.keep.shape[1] or bool(self.keep[:, T:].any()):
            return False
        return torch.equal(self.positions, torch.arange(T, device=self.positions.device))

    @property
    def texts(self) -> list[Text]:
        T, marks = len(self.positions), self.marked
        return [
            Text(b, self.keep[b, :T], None if marks is None else marks[b, :T], n)
            for b, n in enumerate(self.lengths.tolist())
        ]

    def part(self, rows: Tensor, T: int) -> "Allowed":
        """Some rows and their first T tokens."""
        marked = None if self.marked is None else self.marked[rows, :T]
        return Allowed(
            self.pattern, self.keep[rows, :T], self.positions[:T], None, marked, self.lengths[rows]
        )

    @cached_property
    def blind(self) -> Mask | None:
        """The rows that may look at nothing, (B, 1, T, 1); None where there is none."""
        rows = ~self.mask.any(-1, keepdim=True)
        return rows if bool(rows.any()) else None

    @cached_property
    def _added(self) -> dict[torch.dtype, Tensor]:
        return {}

    def added(self, dtype: torch.dtype) -> Tensor:
        """The truth as numbers to add to scores: 0 where allowed, -inf elsewhere.  Made once per batch."""
        if dtype not in self._added:
            zeros = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device)
            self._added[dtype] = zeros.masked_fill(self.hidden, -torch.inf)
        return self._added[dtype]


def restarted(group: Tensor) -> Tensor:
    """Positions (B, T) that begin at 0 where a new document does; group (B, T) changes there."""
    here = torch.arange(group.shape[1], device=group.device).expand_as(group)
    return here - torch.where(begins(group), here, 0).cummax(1).values


def begins(group: Tensor) -> Tensor:
    """(B, T) bool: the first token of each document."""
    new = torch.ones_like(group, dtype=torch.bool)
    new[:, 1:] = group[:, 1:] != group[:, :-1]
    return new


def extent(group: Tensor, keep: Keep) -> Tensor:
    """(B, T): tokens of the document that each token belongs to, up to its last real one."""
    document = begins(group).cumsum(1) - 1
    longest = torch.zeros_like(group)
    longest.scatter_reduce_(1, document, (restarted(group) + 1) * keep, "amax")
    return longest.gather(1, document)
