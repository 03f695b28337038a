"""One answer for a text or a pair of texts: a class, or a number.

[CLS] a [SEP]     [CLS] a [SEP] b [SEP]          (Devlin et al. 2019, figure 4a and 4b; section 4.1 for numbers)"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..formats import plain
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Draw, Ids, Row, Specials
from .feed import check_room
from .texts import encoded, fitted, ids_of, some

Cutter = Callable[[str, random.Random], Ids]


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """`classes` in the order of their numbers; empty: those of the records, sorted, numbers by size."""

    max_tokens: int = 128  # longer texts are cut at the end, of a pair the longer one first
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RegressConfig:
    max_tokens: int = 128


class Labelled:
    """Framed texts with one label each: int (a class) or float (a number).  `texts` are what they were cut from."""

    def __init__(
        self,
        config: ClassifyConfig | RegressConfig,
        first: Rows,
        second: Rows | None,
        labels: Sequence[int | float],
        specials: Specials,
        texts: Sequence[Sequence[str]] = (),
    ) -> None:
        self.config, self.first, self.second = config, first, second
        self.labels, self.specials, self.texts = labels, specials, texts
        self.cutter: Cutter | None = None

    def sampled(self, tokenizer: Encoder, alpha: float) -> None:
        """From now on every look at a text cuts it into sub-words anew (Kudo 2018)."""
        self.cutter = lambda text, rng: np.array(tokenizer.sample(text, rng, alpha), dtype=np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        template = self.specials.one if self.second is None else self.specials.two
        n = self.first.lengths + template.extra
        n = n if self.second is None else n + self.second.lengths
        return np.stack([n, n], axis=1)

    def row(self, i: int, draw: Draw) -> Row:
        a, b = self.cut(i, draw)
        ids, segment, _ = self.specials.one(a) if self.second is None else self.specials.two(a, b)
        return Row(ids, segment=segment, label=self.labels[i])

    def cut(self, i: int, draw: Draw) -> tuple[Ids, Ids]:
        """The ids of both texts, the second of none where there is one text only."""
        if self.cutter is None:
            second = [] if self.second is None else self.second[i]
            return np.array(self.first[i], dtype=np.int64), np.array(second, dtype=np.int64)
        rng = random.Random(int(draw.raw(1)[0]))
        made = [self.cutter(text, rng) for text in self.texts[i]]
        template = self.specials.one if self.second is None else self.specials.two
        b = made[1] if len(made) > 1 else np.empty(0, np.int64)
        return fitted(made[0], b, self.config.max_tokens - template.extra)


def classify(
    config: ClassifyConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Labelled:
    """Records with "text", "label" and, for pairs, "pair".  A label that is no class is counted as "unknown label"."""
    kept = list(records)
    found = sorted({plain(r.values["label"]) for r in kept if "label" in r.values}, key=natural)
    config = config if config.classes else replace(config, classes=tuple(found))
    number = {name: i for i, name in enumerate(config.classes)}

    def label(record: Record) -> int | str:
        return number.get(plain(record.values.get("label")), "unknown label")

    return _labelled(config, kept, tokenizer, specials, report, label)


def natural(name: str) -> tuple[bool, int, str]:
    """Numbers by their size and before names."""
    number = name.isascii() and name.isdecimal()
    return not number, int(name) if number else 0, name


def regress(
    config: RegressConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Labelled:
    """Records with "text", "label" and, for pairs, "pair"; a label that is no finite number is counted."""

    def label(record: Record) -> float | str:
        try:
            value = float(record.values.get("label", ""))
        except (TypeError, ValueError):
            return "not a number"
        return value if math.isfinite(value) else "not a number"

    return _labelled(config, list(records), tokenizer, specials, report, label)


def _labelled(
    config: ClassifyConfig | RegressConfig,
    records: list[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
    label: Callable[[Record], int | float | str],
) -> Labelled:
    """`label` gives a record's label, or why it has none."""
    pair = bool(records) and "pair" in records[0].values
    template = specials.two if pair else specials.one
    check_room(config.max_tokens, template.extra + 1 + pair)
    room = config.max_tokens - template.extra
    first: list[Ids] = []
    second: list[Ids] = []
    labels: list[int | float] = []
    texts: list[list[str]] = []
    names = ["text", "pair"] if pair else ["text"]
    for record, made in encoded(records, names, tokenizer, report):
        value = label(record)
        if isinstance(value, str) or not all(len(e.ids) for e in made):
            reason = value if isinstance(value, str) else "no tokens"
            report.drop(record.place, reason, record.lines)
            continue
        a, b = ids_of(made[0]), ids_of(made[1]) if pair else np.empty(0, np.int64)
        report.shortened += len(a) + len(b) > room
        a, b = fitted(a, b, room)
        first.append(a)
        second.append(b)
        labels.append(value)
        texts.append([record.values[name] for name in names])
    some(first, report)
    seconds = Rows.of(second) if pair else None
    return Labelled(config, Rows.of(first), seconds, labels, specials, texts)
