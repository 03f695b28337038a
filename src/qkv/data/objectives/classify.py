"""One answer for a text or a pair of texts: a class, or a number.

[CLS] a [SEP]     [CLS] a [SEP] b [SEP]          (Devlin et al. 2019, figure 4a and 4b; section 4.1 for numbers)

A long document is cut at `max_tokens`, read whole (0), or in windows, each of which learns the document's label; an
evaluation takes the mean of its windows' logits."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ..formats import plain
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Draw, Ids, Row, Specials
from .feed import check_room
from .texts import encoded, fitted, ids_of, some

LARGEST = float(np.finfo(np.float32).max)  # a net computes no larger number
UNCUT = 1 << 40  # tokens: no text is as long
Cutter = Callable[[str, random.Random], Ids]


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """`classes` in the order of their numbers; empty: those of the records, sorted, numbers by size."""

    max_tokens: int = (
        128  # longer texts are cut at the end, of a pair the longer one first; 0: never
    )
    classes: tuple[str, ...] = ()
    window: int = 0  # tokens of a window, special ones included; 0: one row a text
    stride: int = (
        0  # tokens from the beginning of a window to that of the next; 0: they do not overlap
    )

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.window, self.stride) < 0:
            raise ConfigError(
                f"max_tokens {self.max_tokens}, window {self.window}, stride {self.stride} must not be negative",
                fix="max_tokens = 0, window = 512, stride = 256",
            )
        if twice := [c for i, c in enumerate(self.classes) if c in self.classes[:i]]:
            raise ConfigError(f"classes holds {twice[0]!r} twice", fix="name each class once")
        if self.stride and not self.window:
            raise ConfigError(
                f"stride = {self.stride} without a window", fix="window = 512", code="QKV-013"
            )
        if self.window and 0 < self.max_tokens <= self.window:
            raise ConfigError(
                f"a text cut at max_tokens = {self.max_tokens} has one window of {self.window}",
                fix="max_tokens = 0 reads whole documents",
                code="QKV-013",
            )


@dataclass(frozen=True, kw_only=True)
class RegressConfig:
    max_tokens: int = 128


class Labelled:
    """Framed texts with one label each: int (a class) or float (a number).  `texts` are what they were cut from.

    `owner[i]`: the document that row i is a window of; None: every row is a text."""

    def __init__(
        self,
        config: ClassifyConfig | RegressConfig,
        first: Rows,
        second: Rows | None,
        labels: Sequence[int | float],
        specials: Specials,
        texts: Sequence[Sequence[str]] = (),
        owner: NDArray[np.int64] | None = None,
    ) -> None:
        self.config, self.first, self.second, self.owner = config, first, second, owner
        self.labels, self.specials, self.texts = labels, specials, texts
        self.cutter: Cutter | None = None

    def sampled(self, tokenizer: Encoder, alpha: float) -> None:
        """From now on every look at a text cuts it into sub-words anew (Kudo 2018).

        Raises ConfigError QKV-013 for windows, whose borders are tokens."""
        if self.owner is not None:
            raise ConfigError(
                "windows are cut once, text.sample_alpha asks for cutting anew",
                fix="text.sample_alpha = 0, or no window",
                code="QKV-013",
            )
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
        return fitted(made[0], b, space(self.config.max_tokens, template.extra))

    @property
    def documents(self) -> int:
        return len(self.labels) if self.owner is None else int(self.owner[-1]) + 1


def space(max_tokens: int, extra: int) -> int:
    """Tokens of text that fit beside the special ones."""
    return max_tokens - extra if max_tokens else UNCUT


def windowed(n: int, room: int, stride: int) -> list[tuple[int, int]]:
    """[begin, end) of windows of at most `room` of n tokens; the last one ends with the text."""
    begins = range(0, max(n - room, 0) + stride, stride) if n > room else [0]
    return [(at, min(at + room, n)) for at in begins]


def classify(
    config: ClassifyConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Labelled:
    """Records with "text", "label" and, for pairs, "pair".  A label that is no class is counted as "unknown label", one
    that is no text or number as "not a label".  Raises DataError QKV-032 where there is nothing to tell apart."""
    kept = list(records)
    held = [r.values["label"] for r in kept if "label" in r.values]
    found = sorted({plain(v) for v in held if _names(v)}, key=natural)
    config = config if config.classes else replace(config, classes=tuple(found))
    if len(config.classes) == 1:
        raise DataError(
            f"all records are of one class: {config.classes[0]!r:.60}",
            place=kept[0].place if kept else "",
            fix='look at the column of the label: fields = { label = "…" }',
            code="QKV-032",
        )
    number = {name: i for i, name in enumerate(config.classes)}

    def label(record: Record) -> int | str:
        value = record.values.get("label")
        return number.get(plain(value), "unknown label") if _names(value) else "not a label"

    made = _labelled(config, kept, tokenizer, specials, report, label)
    return _in_windows(made, config) if config.window else made


def _names(label: object) -> bool:
    """Can it name a class?  Not what holds several values, or none."""
    return isinstance(label, str | int | float)


def _in_windows(whole: Labelled, config: ClassifyConfig) -> Labelled:
    """Each window a row with its document's label."""
    if whole.second is not None:
        raise ConfigError("a pair of texts has no windows", fix="remove window", code="QKV-013")
    extra = whole.specials.one.extra
    room = config.window - extra
    check_room(config.window, extra + 1)
    spans = [windowed(int(n), room, min(config.stride or room, room)) for n in whole.first.lengths]
    rows = [whole.first[i][a:b] for i, own in enumerate(spans) for a, b in own]
    owner = np.repeat(np.arange(len(spans)), [len(own) for own in spans])
    labels = [whole.labels[i] for i in owner.tolist()]
    return Labelled(config, Rows.of(rows), None, labels, whole.specials, (), owner)


def natural(name: str) -> tuple[bool, int, str]:
    """Numbers by their size and before names."""
    number = name.isascii() and name.isdecimal() and len(name) < 19
    return not number, int(name) if number else 0, name


def regress(
    config: RegressConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Labelled:
    """Records with "text", "label" and, for pairs, "pair"; a label that is no finite number of float32 is counted."""

    def label(record: Record) -> float | str:
        try:
            value = float(record.values.get("label", ""))
        except (TypeError, ValueError, OverflowError):
            return "not a number"
        return value if abs(value) <= LARGEST else "not a number"

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
    room = space(config.max_tokens, template.extra)
    check_room(room + template.extra, template.extra + 1 + pair)
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
