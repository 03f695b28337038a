"""Records -> ids; words, sentences and pieces of a text, found through character offsets."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any

import numpy as np

from ...errors import DataError
from ..records import Record
from ..report import SkipReport, counted
from ..stream import CHUNK, Encoder
from .base import Ids

Spans = list[tuple[int, int]]
SENTENCE = re.compile(r"[.!?。！？…]+[\"'”’»)\]」』]*\s+|\n+")


def encoded(
    records: Iterable[Record], names: Sequence[str], tokenizer: Encoder, report: SkipReport
) -> Iterator[tuple[Record, list[Any]]]:
    """Each record with the encodings of its texts `names`; what cannot be encoded is counted.

    Raises DataError QKV-033 where a value is no text or the tokenizer fails on more than 0.1 % of the records, QKV-032
    where there is no record, with what became of them."""
    stream, failed, total = iter(records), [], 0
    while chunk := list(islice(stream, CHUNK)):
        total += len(chunk)
        texts = [[_text(record, name) for name in names] for record in chunk]
        for record, made in zip(chunk, _encode(texts, tokenizer), strict=True):
            if made is None:
                report.drop(record.place, "not encodable", record.lines)
                failed.append(record.place)
            else:
                yield record, made
    if len(failed) > max(1, total // 1000):
        seen = f"the tokenizer failed on {len(failed):,} of {total:,} records"
        raise DataError(seen, place=failed[0], fix="look at that line")
    if not total:
        said = f" ({counted(report.skipped)})" if report.skipped else ""
        raise DataError(f"no record to learn from{said}", fix="check the corpus", code="QKV-032")


def _text(record: Record, name: str) -> str:
    value = record.values.get(name)
    if not isinstance(value, str):
        seen = f"{name!r} is {value!r:.60}, not a text" if name in record.values else f"no {name!r}"
        raise DataError(seen, place=record.place, fix=f'fields = {{ {name} = "…" }}')
    return value


def _encode(texts: list[list[str]], tokenizer: Encoder) -> list[list[Any] | None]:
    flat = [text for row in texts for text in row]
    try:
        made = iter(tokenizer.encode_batch(flat))
        return [[next(made) for _ in row] for row in texts]
    except Exception:  # a poisoned record must not end a run: find it by itself
        if len(texts) == 1:
            return [None]
        return [made for row in texts for made in _encode([row], tokenizer)]


def ids_of(encoding: Any) -> Ids:
    return np.asarray(encoding.ids, dtype=np.int64)


def some(kept: Sequence[Any], report: SkipReport) -> None:
    """Raises DataError QKV-032 where no example is left."""
    if not kept:
        raise DataError(
            f"no usable example ({counted(report.skipped) or 'nothing was read'})",
            fix="check the corpus and the objective's settings",
            code="QKV-032",
        )


def solid(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """A span without white space at its ends; (a, a) where nothing else is in it."""
    a, b = span
    while a < b and text[a].isspace():
        a += 1
    while b > a and text[b - 1].isspace():
        b -= 1
    return a, b


def words(text: str, offsets: Spans) -> Ids:
    """The number of the word each token belongs to: letters, digits and marks in a row, or one other character.

    A token of white space is a word of its own."""
    letters = [_letter(c) for c in text]
    starts = [i for i in range(len(text)) if not (i and letters[i] and letters[i - 1])]
    return _numbers(text, offsets, starts, alone=True)


@cache
def _letter(c: str) -> bool:
    return c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M"


def sentences(text: str, offsets: Spans) -> Ids:
    """The number of the sentence each token belongs to; sentences end at full stops before white space and at line ends."""
    starts = [0, *(m.end() for m in SENTENCE.finditer(text) if m.end() < len(text))]
    return _numbers(text, offsets, starts, alone=False)


def _numbers(text: str, offsets: Spans, starts: list[int], alone: bool) -> Ids:
    """Which start each token's first solid character comes after, counted from 0 without gaps."""
    spans = [solid(text, span) for span in offsets]
    at = np.array([a for a, _ in spans], dtype=np.int64)
    blank = np.array([a == b for a, b in spans], dtype=bool)
    made = np.searchsorted(np.array(starts), at, side="right")
    before = np.maximum.accumulate(np.where(blank, 0, made)) if len(made) else made
    made = np.where(blank, before, made)
    new = np.zeros(len(made), dtype=bool)
    new[1:] = made[1:] > made[:-1]
    if alone:
        new[1:] |= blank[1:] | blank[:-1]
    return np.cumsum(new).astype(np.int64)


def pieces(n: int, most: int, ends: Iterable[int] = ()) -> list[tuple[int, int]]:
    """[0, n) cut into runs of at most `most`: at the last of `ends` that still fits, else where it is full."""
    made, start, last = [], 0, 0
    for end in [*sorted({e for e in ends if 0 < e < n}), n]:
        if end - start > most and last > start:
            made.append((start, last))
            start = last
        while end - start > most:
            made.append((start, start + most))
            start += most
        last = end
    return [*made, (start, n)] if n > start else made


def fitted(a: Ids, b: Ids, room: int) -> tuple[Ids, Ids]:
    """Both cut at their ends, the longer one first, to `room` tokens in all."""
    keep_a = min(len(a), max(room - len(b), (room + 1) // 2))
    return a[:keep_a], b[: room - keep_a]
