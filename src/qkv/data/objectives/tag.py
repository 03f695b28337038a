"""A label for every token: named entities and slots, as BIO tags (Ramshaw & Marcus 1995; Devlin et al. 2019, section 5.3).

    text  김 재 원 의 연 기        characters  B-PS I-PS I-PS O O O        tokens  김재원/B-PS  의/O  연기/O

What is marked are spans of characters; tags of characters or of words are turned into spans, spans into labels of
tokens through the tokenizer's offsets, and predicted labels back into spans."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..records import Record
from ..report import SkipReport, counted
from ..stream import Encoder, Rows
from .base import Draw, Ids, Row, Specials
from .denoise import cut_all
from .feed import check_room
from .masked import cut_out
from .texts import Spans, encoded, ids_of, solid, some

OUTSIDE = "O"
Floats = NDArray[np.float32]


class Mark(NamedTuple):
    """text[start:end] is of this kind."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class TagConfig:
    """`kinds`: what can be marked; empty: what the records mark, sorted.  `on`: whether every token has a label, or, of
    each word (text between white space), the first token alone, for the whole word."""

    max_tokens: int = 128  # longer texts are cut into several rows
    kinds: tuple[str, ...] = ()
    on: Literal["tokens", "words"] = "tokens"

    @property
    def labels(self) -> tuple[str, ...]:
        """O, B-x, I-x, B-y, I-y, …"""
        return (OUTSIDE, *(f"{bi}-{kind}" for kind in self.kinds for bi in "BI"))


# -- spans and tags -------------------------------------------------------------------------------------------


def marks(tags: Sequence[str], spans: Spans | None = None) -> list[Mark]:
    """BIO tags as spans; spans[i]: the characters of tag i (one character each, if not given).

    An I that continues nothing of its kind begins a span, as in the CoNLL-2000 evaluation script."""
    made: list[Mark] = []
    for i, tag in enumerate(tags):
        start, end = (i, i + 1) if spans is None else spans[i]
        begins, _, kind = tag.partition("-")
        if not kind:
            continue
        last = made[-1] if made and i and tags[i - 1].partition("-")[2] == kind else None
        if begins == "I" and last is not None:
            made[-1] = last._replace(end=end)
        else:
            made.append(Mark(start, end, kind))
    return made


def agreed(p: Floats, names: Sequence[str]) -> list[int]:
    """The likeliest tags in which every I-x continues a B-x or I-x: argmax Σ log p_i(tag_i) (Viterbi 1967).

    p (tokens, labels): the probability of each label; numbers of `names`.  An I-x without a B-x among the names may begin."""
    if not len(p):
        return []
    kinds = [name.partition("-") for name in names]
    begun = {kind for front, _, kind in kinds if front == "B"}
    held = [front == "I" and kind in begun for front, _, kind in kinds]
    bad = np.array([[h and b[2] != a[2] for b, h in zip(kinds, held, strict=True)] for a in kinds])
    log = np.log(np.maximum(p, np.finfo(np.float32).tiny))
    best, came = np.where(held, -np.inf, log[0]), []
    for row in log[1:]:
        paths = np.where(bad, -np.inf, best[:, None])  # from, to
        came.append(paths.argmax(0))
        best = paths.max(0) + row
    at = [int(best.argmax())]
    for back in reversed(came):
        at.append(int(back[at[-1]]))
    return at[::-1]


def apart(found: Sequence[Mark]) -> list[Mark]:
    """Spans that do not overlap, which is all that BIO tags can say: of those that do the first, the longer, stays."""
    made: list[Mark] = []
    for mark in sorted(found, key=lambda m: (m.start, -m.end, m.kind)):
        if not made or made[-1].end <= mark.start:
            made.append(mark)
    return made


def token_tags(text: str, offsets: Spans, found: Sequence[Mark]) -> list[str]:
    """The tag of each token: that of the first span it shares a character with; white space alone is outside."""
    made, begun = [], set()
    ordered = apart(found)
    k = 0
    for span in offsets:
        a, b = solid(text, span)
        while k < len(ordered) and ordered[k].end <= a:
            k += 1
        if a == b or k == len(ordered) or ordered[k].start >= b:
            made.append(OUTSIDE)
        else:
            made.append(f"{'I' if k in begun else 'B'}-{ordered[k].kind}")
            begun.add(k)
    return made


def speaking(text: str, offsets: Spans, on: str) -> tuple[list[int], list[tuple[int, int]]]:
    """(tokens whose tags count, the characters that each stands for): those that are not white space, or each word's first."""
    if on == "words":
        words = word_spans(text, offsets)
        return [i for i, _, _ in words], [(a, b) for _, a, b in words]
    spans = [solid(text, span) for span in offsets]
    said = [i for i, (a, b) in enumerate(spans) if a < b]
    return said, [spans[i] for i in said]


def word_spans(text: str, offsets: Spans) -> list[tuple[int, int, int]]:
    """(first token, start, end) of every word between white space that has a token."""
    made: list[tuple[int, int, int]] = []
    for i, span in enumerate(offsets):
        a, b = solid(text, span)
        if a == b or made and a < made[-1][2]:
            continue
        start = a
        while start and not text[start - 1].isspace():
            start -= 1
        while b < len(text) and not text[b].isspace():
            b += 1
        made.append((i, start, b))
    return made


# -- records ----------------------------------------------------------------------------------------------------


def read_marks(record: Record) -> tuple[str, list[Mark]] | None:
    """(text, spans) of a record, or None where they do not fit.

    "text" with "tags", one of each character, or with "spans", {"start", "end", and "slot", "kind" or "label"; its "text"
    where there is one must stand there};
    or "words" with "tags", one of each word."""
    v = record.values
    tags, found = v.get("tags"), v.get("spans")
    if isinstance(v.get("words"), list) and isinstance(tags, list):
        words = v["words"]
        if len(words) != len(tags) or not all(isinstance(w, str) and w.strip() for w in words):
            return None
        ends = np.cumsum([len(w) + 1 for w in words]).tolist()
        places = [(end - 1 - len(w), end - 1) for w, end in zip(words, ends, strict=True)]
        return (" ".join(words), marks(tags, places)) if _all_tags(tags) else None
    text = v.get("text")
    if not isinstance(text, str):
        return None
    if isinstance(found, list):
        made = [_mark(text, s) for s in found]
        good = sorted(m for m in made if m is not None)
        return (text, good) if len(good) == len(made) else None
    if not isinstance(tags, list) or len(tags) != len(text) or not _all_tags(tags):
        return None
    return text, marks(tags)


def _all_tags(tags: list[Any]) -> bool:
    return all(
        isinstance(t, str) and (t == OUTSIDE or t[:2] in ("B-", "I-") and t[2:]) for t in tags
    )


def _mark(text: str, span: Any) -> Mark | None:
    if not isinstance(span, dict):
        return None
    a, b = span.get("start"), span.get("end")
    kind = span.get("slot", span.get("kind", span.get("label")))
    if type(a) is not int or type(b) is not int or not isinstance(kind, str) or not kind:
        return None
    fits = 0 <= a < b <= len(text) and span.get("text", text[a:b]) == text[a:b]
    return Mark(a, b, kind) if fits else None


class Tagged:
    """Texts with a label of each token; `piece[i]` = (text, first token, end) of row i."""

    def __init__(
        self,
        config: TagConfig,
        texts: Rows,
        labels: Rows,
        counts: Rows,
        marked: list[tuple[str, list[Mark]]],
        offsets: list[Spans],
        specials: Specials,
    ) -> None:
        check_room(config.max_tokens, specials.one.extra + 1)
        self.config, self.texts, self.labels, self.counts = config, texts, labels, counts
        self.marked, self.offsets, self.specials = marked, offsets, specials
        self.piece = cut_all(texts, config.max_tokens - specials.one.extra)

    @property
    def lengths(self) -> NDArray[np.int64]:
        n = self.piece[:, 2] - self.piece[:, 1] + self.specials.one.extra
        return np.stack([n, n], axis=1)

    def row(self, i: int, draw: Draw) -> Row:
        span = self.piece[i].tolist()
        ids = cut_out(self.texts, *span)
        source, segment, at = self.specials.one(ids)
        target, counts = np.zeros(len(source), np.int64), np.zeros(len(source), dtype=bool)
        target[at : at + len(ids)] = cut_out(self.labels, *span)
        counts[at : at + len(ids)] = cut_out(self.counts, *span) > 0
        return Row(source, target, counts, segment=segment)

    def spans(self, predicted: Sequence[Floats]) -> list[list[Mark]]:
        """Probabilities (positions, labels) of every row, frame and padding included, as the marks of every text."""
        _, _, at = self.specials.one(np.empty(0, np.int64))
        whole: list[list[Floats]] = [[] for _ in self.offsets]
        for (t, a, b), row in zip(self.piece.tolist(), predicted, strict=True):
            whole[t].append(row[at : at + b - a])
        return [self._marks(t, np.concatenate(p)) for t, p in enumerate(whole)]

    def _marks(self, t: int, p: Floats) -> list[Mark]:
        said, places = speaking(self.marked[t][0], self.offsets[t], self.config.on)
        names = self.config.labels
        return marks([names[k] for k in agreed(p[said], names)], places)


def tag(
    config: TagConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Tagged:
    """Records as `read_marks` takes them.  Tags that do not fit their text are counted as "tags do not fit", kinds that
    are not among `kinds` as "unknown label"."""
    read: list[tuple[str, list[Mark]]] = []
    kept = []
    for record in records:
        made = read_marks(record)
        if made is None:
            report.drop(record.place, "tags do not fit", record.lines)
        else:
            read.append(made)
            kept.append(replace(record, values={"text": made[0], "at": len(read) - 1}))
    if not config.kinds:
        config = replace(config, kinds=tuple(sorted({m.kind for _, found in read for m in found})))
    if not config.kinds:
        seen = f"no record marks anything ({counted(report.skipped) or 'nothing was read'})"
        raise DataError(seen, fix="look at tags or spans", code="QKV-032")
    return _tagged(config, kept, read, tokenizer, specials, report)


def _tagged(
    config: TagConfig,
    kept: list[Record],
    read: list[tuple[str, list[Mark]]],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Tagged:
    number = {name: i for i, name in enumerate(config.labels)}
    texts, labels, counts, marked, places = [], [], [], [], []
    for record, (text,) in encoded(kept, ["text"], tokenizer, report):
        words, found = read[record.values["at"]]
        ids = ids_of(text)
        known = all(f"B-{m.kind}" in number for m in found)
        if not len(ids) or not known:
            reason = "no tokens" if known else "unknown label"
            report.drop(record.place, reason, record.lines)
            continue
        label, count = _labels(config, words, text.offsets, found, number)
        texts.append(ids)
        labels.append(label)
        counts.append(count)
        marked.append((words, found))
        places.append(text.offsets)
    some(texts, report)
    rows = [Rows.of(x) for x in (texts, labels, counts)]
    return Tagged(config, rows[0], rows[1], rows[2], marked, places, specials)


def _labels(
    config: TagConfig, text: str, offsets: Spans, found: list[Mark], number: dict[str, int]
) -> tuple[Ids, Ids]:
    """The label of each token, and whether it counts."""
    label, count = np.zeros(len(offsets), np.int64), np.zeros(len(offsets), np.int64)
    if config.on == "tokens":
        label[:] = [number[t] for t in token_tags(text, offsets, found)]
        count[:] = [a < b for a, b in (solid(text, span) for span in offsets)]
    else:
        words = word_spans(text, offsets)
        tags = token_tags(text, [(a, b) for _, a, b in words], found)
        first = [i for i, _, _ in words]
        label[first], count[first] = [number[t] for t in tags], 1
    return label, count
