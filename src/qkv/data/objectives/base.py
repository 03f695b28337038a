"""What every objective is made of: special ids, random numbers, a row before padding, and the frame around texts.

All randomness is raw output of Philox (Salmon et al. 2011), which numpy promises to keep, keyed by whole numbers: the
seed, the epoch and the example.  So a row is the same in whatever batch it comes, and a resumed run draws what the
uninterrupted one drew (law 9)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ..batches import Index

if TYPE_CHECKING:
    from ...shapes import Batch

Ids = NDArray[np.int64]
Chosen = NDArray[np.bool_]
Frame = Callable[[Sequence[int], Sequence[int] | None], tuple[list[int], list[int]]]
NAMES = ("pad", "bos", "eos", "cls", "sep", "mask")
ROW = 16  # purpose of random numbers; batches.py has the small ones
A, B = -1, -2  # where the two texts stand in a template


@dataclass(frozen=True, kw_only=True)
class Specials:
    """The ids that an objective puts between a text's own; None: the tokenizer has no such token.

    `frame` puts what the model expects around one text or two; without it [CLS] a [SEP] b [SEP], with <bos> and <eos>
    in their place where there is no [CLS] or [SEP]."""

    pad: int = 0
    bos: int | None = None
    eos: int | None = None
    cls: int | None = None
    sep: int | None = None
    mask: int | None = None
    sentinels: tuple[int, ...] = ()  # <extra_id_0>, <extra_id_1>, …
    vocab_size: int = 0
    frame: Frame | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Those of any tokenizer here: its `pad_id`, `mask_id`, …, its `frame`, and <extra_id_0> … where it has them."""
        found = {name: getattr(tokenizer, f"{name}_id", None) for name in NAMES}
        id_of = getattr(tokenizer, "id_of", lambda piece: None)
        sentinels: list[int] = []
        while (i := id_of(f"<extra_id_{len(sentinels)}>")) is not None:
            sentinels.append(i)
        return cls(
            **{name: i for name, i in found.items() if i is not None},
            sentinels=tuple(sentinels),
            vocab_size=tokenizer.vocab_size,
            frame=getattr(tokenizer, "frame", None),
        )

    def need(self, name: str) -> int:
        """The id of a special token.  Raises ConfigError QKV-013 where there is none."""
        found: int | None = getattr(self, name)
        if found is None:
            raise ConfigError(
                f"this objective needs a <{name}> token and the tokenizer has none",
                fix=f"train or load a tokenizer with <{name}>",
                code="QKV-013",
            )
        return found

    @cached_property
    def all(self) -> Ids:
        """Every special id, sorted: never masked, never drawn."""
        own = {getattr(self, name) for name in NAMES} - {None}
        return np.array(sorted(own | set(self.sentinels)), dtype=np.int64)

    def special(self, ids: Ids) -> Chosen:
        """Which of these ids are special."""
        return self._table.take(ids, mode="clip")

    @cached_property
    def _table(self) -> Chosen:
        made = np.zeros(max(self.vocab_size, int(self.all.max(initial=0)) + 1) + 1, dtype=bool)
        made[self.all] = True
        return made

    @cached_property
    def ordinary(self) -> Ids:
        """Every other id of the vocabulary.  Raises ConfigError where there is none."""
        made = np.setdiff1d(np.arange(self.vocab_size, dtype=np.int64), self.all)
        if not len(made):
            raise ConfigError(
                f"a vocabulary of {self.vocab_size} has no ordinary token",
                fix="give Specials its vocab_size",
                code="QKV-013",
            )
        return made

    @cached_property
    def one(self) -> "Template":
        return Template(*self._framed([A], None))

    @cached_property
    def two(self) -> "Template":
        return Template(*self._framed([A], [B]))

    def _framed(self, a: list[int], b: list[int] | None) -> tuple[list[int], list[int]]:
        if self.frame is not None:
            return self.frame(a, b)
        front = [i for i in (self.bos if self.cls is None else self.cls,) if i is not None]
        end = [i for i in (self.eos if self.sep is None else self.sep,) if i is not None]
        first, second = [*front, *a, *end], [] if b is None else [*b, *end]
        return first + second, [0] * len(first) + [1] * len(second)

    def ends(self, ids: Ids) -> Ids:
        """<bos> ids <eos>, as far as there are such tokens."""
        front = [] if self.bos is None else [self.bos]
        end = [] if self.eos is None else [self.eos]
        return np.concatenate([front, ids, end]).astype(np.int64)


@dataclass(frozen=True)
class Template:
    """Special ids with places for one text or two, and the segment of each."""

    ids: list[int]
    segments: list[int]

    @property
    def extra(self) -> int:
        """How many tokens it adds."""
        return sum(i not in (A, B) for i in self.ids)

    def __call__(self, a: Ids, b: Ids | None = None) -> tuple[Ids, Ids, int]:
        """(ids, segments, where the last text begins)."""
        texts: dict[int, Any] = {A: a, B: b}
        parts: list[Any] = []
        lengths: list[int] = []
        begins = 0
        for i in self.ids:
            part = texts.get(i, [i])
            if i in (A, B):
                begins = sum(lengths)
            parts.append(part)
            lengths.append(0 if part is None else len(part))
        ids = np.concatenate([p for p in parts if p is not None]).astype(np.int64)
        return ids, np.repeat(self.segments, lengths).astype(np.int64), begins


class Draw:
    """Random numbers that are a pure function of a key of whole numbers, on every machine and numpy version."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.Philox(np.random.SeedSequence([k % 2**64 for k in key]))

    def raw(self, n: int) -> NDArray[np.uint64]:
        return self._bits.random_raw(n).astype(np.uint64, copy=False)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """n numbers in [0, 1), multiples of 2⁻⁵³."""
        return (self.raw(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, most: int, n: int) -> Ids:
        """n whole numbers in [0, most)."""
        return (self.uniform(n) * most).astype(np.int64)

    def one(self, most: int) -> int:
        return int(self.below(most, 1)[0])

    def chance(self, p: float) -> bool:
        return bool(self.uniform(1)[0] < p)

    def order(self, n: int) -> Ids:
        """A random order of range(n)."""
        return np.argsort(self.raw(n), kind="stable")

    def some(self, n: int, k: int) -> Ids:
        """k different numbers of range(n), sorted."""
        return np.sort(self.order(n)[:k])

    def rounded(self, x: float) -> int:
        """x rounded up or down at random, so that its mean is x."""
        return int(x) + int(self.uniform(1)[0] < x - int(x))


class Row(NamedTuple):
    """One example before padding.  `counts`: the target is aligned with the source, and this says where it counts."""

    source: Ids
    target: Ids | None = None
    counts: Chosen | None = None
    segment: Ids | None = None
    group: Ids | None = None
    label: int | float | tuple[int, int] | None = None


def batch_of(rows: Sequence[Row], index: Index, pad_id: int, multiple: int = 1) -> "Batch":
    """Rows of one objective as one Batch, right-padded to a multiple; padding has segment 0 and a group of its own."""
    import torch

    from ...shapes import Batch

    sources = [r.source for r in rows]
    S = _width(sources, multiple)
    ids, keep = _padded(sources, S, pad_id)
    made: dict[str, NDArray[Any]] = {"source": ids, "keep": keep}
    targets = [r.target for r in rows if r.target is not None]
    if targets:
        aligned = rows[0].counts is not None
        T = S if aligned else _width(targets, multiple)
        made["target"], made["target_keep"] = _padded(targets, T, pad_id)
        if aligned:
            made["target_keep"], _ = _padded([r.counts for r in rows], S, False)  # type: ignore[misc]
    if rows[0].segment is not None:
        made["segment"], _ = _padded([r.segment for r in rows], S, 0)  # type: ignore[misc]
    if rows[0].group is not None:
        groups = [r.group for r in rows if r.group is not None]
        made["group"], _ = _padded(groups, S, 1 + max(int(g.max(initial=-1)) for g in groups))
    if rows[0].label is not None:
        labels = [r.label for r in rows]
        made["label"] = np.array(labels, np.float32 if isinstance(labels[0], float) else np.int64)
    made["index"] = index.copy()
    return Batch(**{name: torch.from_numpy(x) for name, x in made.items()})


def _width(rows: Sequence[NDArray[Any]], multiple: int) -> int:
    longest = max(1, max(len(r) for r in rows))
    return -(-longest // multiple) * multiple


def _padded(rows: Sequence[NDArray[Any]], width: int, fill: int) -> tuple[NDArray[Any], Chosen]:
    made = np.full((len(rows), width), fill, dtype=rows[0].dtype)
    for out, row in zip(made, rows, strict=True):
        out[: len(row)] = row
    lengths = np.array([len(r) for r in rows])
    return made, np.arange(width) < lengths[:, None]
