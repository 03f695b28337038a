"""Who may look at whom.  Patterns are frozen values joined by & and |; `mask(T, S)` is their dense truth.

`Allowed` couples a pattern with the padding of a batch; it is what `attend` asks for, and is never optional."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from ..shapes import Keep, Mask


class Pattern(ABC):
    """A rule on pairs of positions: may the query at i look at the key at j?"""

    @abstractmethod
    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        """i (…, T, 1) and j (…, 1, S) int64 -> bool, broadcast to (…, T, S)."""

    def mask(self, T: int, S: int) -> Tensor:
        """(T, S) bool for queries 0 … T-1 and keys 0 … S-1."""
        return self.allowed(torch.arange(T)[:, None], torch.arange(S)).expand(T, S)

    def __and__(self, other: "Pattern") -> "Pattern":
        return Both(self, other)

    def __or__(self, other: "Pattern") -> "Pattern":
        return Either(self, other)


@dataclass(frozen=True)
class Full(Pattern):
    """Everybody looks at everybody."""

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return (i >= 0) & (j >= 0)


@dataclass(frozen=True)
class Causal(Pattern):
    """Nobody looks ahead."""

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return j <= i


@dataclass(frozen=True)
class Window(Pattern):
    """Only neighbours up to `radius` away, on both sides."""

    radius: int

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return (i - j).abs() <= self.radius


@dataclass(frozen=True)
class Both(Pattern):
    one: Pattern
    other: Pattern

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return self.one.allowed(i, j) & self.other.allowed(i, j)


@dataclass(frozen=True)
class Either(Pattern):
    one: Pattern
    other: Pattern

    def allowed(self, i: Tensor, j: Tensor) -> Tensor:
        return self.one.allowed(i, j) | self.other.allowed(i, j)


@dataclass(frozen=True, eq=False)
class Allowed:
    """A pattern and the padding of a batch: the pairs (query, key) that may meet.

    `positions` of the queries among the keys: (T) shared by all rows, or (B, T) when rows stand at different places.
    `group` (B, S) where several documents share a row: a token sees those of its own only; then T = S."""

    pattern: Pattern
    keep: Keep  # (B, S)
    positions: Tensor  # (T) or (B, T) int64
    group: Tensor | None = None  # (B, S) int64

    @classmethod
    def of(
        cls, pattern: Pattern, keep: Keep, T: int | None = None, group: Tensor | None = None
    ) -> Self:
        """For queries at 0 … T-1; T defaults to the number of keys."""
        T = keep.shape[1] if T is None else T
        return cls(pattern, keep, torch.arange(T, device=keep.device), group)

    @cached_property
    def mask(self) -> Mask:
        i = self.positions if self.positions.dim() == 2 else self.positions[None]
        j = torch.arange(self.keep.shape[1], device=self.keep.device)
        pairs = self.pattern.allowed(i[:, :, None], j)  # (1 or B, T, S)
        if self.group is not None:
            pairs = pairs & (self.group[:, :, None] == self.group[:, None])
        return (pairs & self.keep[:, None]).unsqueeze(1)  # (B, 1, T, S)

    def dense(self) -> Mask:
        """The boolean truth (B, 1, T, S), True = may look."""
        return self.mask

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
            self._added[dtype] = zeros.masked_fill(~self.mask, -torch.inf)
        return self._added[dtype]
