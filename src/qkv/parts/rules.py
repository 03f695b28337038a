"""Who may look at whom: rules on pairs of positions.  Frozen values joined by & and |; `mask(T, S)` is their dense truth."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import ConfigError

FAR = 1 << 40  # no text is so long: a row that has fewer blocks to draw from draws this one
ROWS = 1024  # of a table of draws, made at a time


class Pattern(ABC):
    """A rule on pairs of positions: may the query at i look at the key at j, in a text of n tokens?"""

    @abstractmethod
    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        """i (…, T, 1), j (…, 1, S) and n (…, 1 or T, 1), all int64 -> bool, broadcast to (…, T, S)."""

    def mask(self, T: int, S: int) -> Tensor:
        """(T, S) bool for queries 0 … T-1 and keys 0 … S-1 of a text of S tokens."""
        i, j, n = torch.arange(T)[:, None], torch.arange(S), torch.tensor([[S]])
        return self.allowed(i, j, n).expand(T, S)

    def onward(self) -> "Pattern":
        """The same for a text that is still being written: nothing in it depends on where the text ends."""
        return self

    def __and__(self, other: "Pattern") -> "Pattern":
        return Both(self, other)

    def __or__(self, other: "Pattern") -> "Pattern":
        return Either(self, other)


def check(pattern: Pattern, **least: int) -> None:
    """Raises ConfigError QKV-012 where a number of the pattern is below its least, or beyond any text."""
    for f in fields(pattern):  # type: ignore[arg-type]
        value, low = getattr(pattern, f.name), least.get(f.name, 0)
        if not low <= value < FAR:
            raise ConfigError(
                f"{type(pattern).__name__.lower()}: {f.name} must be at least {low} (got {value})",
                fix=f"try {f.name}={max(low, 1)}",
            )


@dataclass(frozen=True)
class Full(Pattern):
    """Everybody looks at everybody."""

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        return (i >= 0) & (j >= 0)


@dataclass(frozen=True)
class Causal(Pattern):
    """Nobody looks ahead."""

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        return j <= i


@dataclass(frozen=True)
class Window(Pattern):
    """Only neighbours up to `radius` away, on both sides."""

    radius: int

    def __post_init__(self) -> None:
        check(self)

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        return (i - j).abs() <= self.radius


@dataclass(frozen=True)
class Dilated(Pattern):
    """`radius` neighbours on both sides, `step` apart (Beltagy et al. 2020, section 3.1)."""

    radius: int
    step: int

    def __post_init__(self) -> None:
        check(self, step=1)
        if self.radius * self.step >= FAR:
            raise ConfigError(
                f"dilated: {self.radius} neighbours {self.step} apart are beyond any text",
                fix="try dilated(4, 3)",
            )

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        away = i - j
        return (away.abs() <= self.radius * self.step) & (away % self.step == 0)


@dataclass(frozen=True)
class Global(Pattern):
    """The `first` tokens see all and are seen by all (Beltagy et al. 2020, section 3.1)."""

    first: int

    def __post_init__(self) -> None:
        check(self)

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        return (i < self.first) | (j < self.first)


@dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of `size` tokens that see their `near` neighbours on both sides, the `first` and `last` blocks, which see all,
    and `random` others (Zaheer et al. 2020, section 2 and appendix D).

    Block c is drawn by block a where hash(seed, a, c) is among the smallest of the blocks that a does not see anyway.
    past: only earlier blocks are drawn, and the draw of a block does not change while the text grows."""

    size: int
    near: int = 1
    first: int = 1
    last: int = 1
    random: int = 3
    seed: int = 0
    past: bool = False

    def __post_init__(self) -> None:
        check(self, size=1)

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        a, c, count = i // self.size, j // self.size, self.count(n)
        seen = ((a - c).abs() <= self.near) | (a < self.first) | (c < self.first)
        if self.last:
            last = [(x >= count - self.last) & (x < count) for x in (a, c)]
            seen = seen | last[0] | last[1]
        return (seen | self.drawn(a, c, count)) if self.random else seen

    def count(self, n: Tensor) -> Tensor:
        """Blocks of a text of n tokens, the last perhaps in part."""
        return -(-n // self.size)

    def drawn(self, a: Tensor, c: Tensor, count: Tensor) -> Tensor:
        """Is block c among those that block a draws in a text of so many blocks?"""
        if self.past:  # one table for texts of all lengths
            count = torch.full_like(count, int(a.max()) + 1 if a.numel() else 1)
        found = torch.zeros((), dtype=torch.bool, device=a.device)
        for m in sorted(set(count.flatten().tolist())):
            table = draws(self, m).to(a.device)
            row = table[a.clamp(max=max(m - 1, 0))] if m else table.new_full((*a.shape, 1), FAR)
            found = found | ((count == m) & (a < m) & (row == c[..., None]).any(-1))
        return found

    def onward(self) -> Pattern:
        return replace(self, last=0, past=True)


@lru_cache(maxsize=64)
def draws(blocks: Blocks, count: int) -> Tensor:
    """(count, random) int64: the blocks that each of `count` blocks draws, FAR where there are not enough."""
    c, made = torch.arange(count), []
    for begin in range(0, count, ROWS):
        a = torch.arange(begin, min(begin + ROWS, count))[:, None]
        seen = ((a - c).abs() <= blocks.near) | (a < blocks.first) | (c < blocks.first)
        seen = seen | (a < c if blocks.past else (a >= count - blocks.last) | (c >= count - blocks.last))  # fmt: skip
        rank = scattered(a, c, blocks.seed).masked_fill(seen, FAR)
        least, chosen = rank.topk(min(blocks.random, count), dim=1, largest=False)
        made.append(chosen.masked_fill(least == FAR, FAR).sort(1).values)
    return torch.cat(made) if made else torch.empty(0, 1, dtype=torch.int64)


def scattered(a: Tensor, c: Tensor, seed: int) -> Tensor:
    """A number of 39 bits for every pair, as good as random (the finaliser of Steele et al. 2014, figure 16, signed)."""
    x = (a * 0x1FFFFFFFFFFFFFFF + c) * 0x3C79AC492BA7B653 + seed * 0x1C69B3F74AC4AE35 % (1 << 63)
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((x >> 25) & ((1 << 39) - 1)).long()


@dataclass(frozen=True)
class Both(Pattern):
    one: Pattern
    other: Pattern

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        return self.one.allowed(i, j, n) & self.other.allowed(i, j, n)

    def onward(self) -> Pattern:
        return Both(self.one.onward(), self.other.onward())


@dataclass(frozen=True)
class Either(Pattern):
    one: Pattern
    other: Pattern

    def allowed(self, i: Tensor, j: Tensor, n: Tensor) -> Tensor:
        return self.one.allowed(i, j, n) | self.other.allowed(i, j, n)

    def onward(self) -> Pattern:
        return Either(self.one.onward(), self.other.onward())


def causal(pattern: Pattern) -> bool:
    """Does the rule say in itself that nobody looks ahead?"""
    if isinstance(pattern, Both):
        return causal(pattern.one) or causal(pattern.other)
    if isinstance(pattern, Either):
        return causal(pattern.one) and causal(pattern.other)
    return isinstance(pattern, Causal)
