"""Character offsets: from pieces to the folded text, and from there to the text the caller passed."""

import unicodedata
from collections.abc import Callable

Spans = list[tuple[int, int]]


def piece_spans(pieces: list[str]) -> Spans:
    """Spans of pieces that follow each other without gap; the bytes of one character share its span.

    Every piece but <0xNN> is as long as its text (user text never holds a special)."""
    spans: Spans = []
    at, left = 0, 0  # left: bytes of the character that are still to come
    for piece in pieces:
        if len(piece) == 6 and piece.startswith("<0x"):
            if not left:
                byte = int(piece[3:5], 16)
                left = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            spans.append((at, at + 1))
            left -= 1
            at += not left
        else:
            spans.append((at, at + len(piece)))
            at += len(piece)
    return spans


def original_spans(text: str, folded: str, spans: Spans, fold: Callable[[str], str]) -> Spans:
    """Spans of the folded text as spans of the original: (F, F) -> (T, T).

    The original is cut into clusters that fold independently (a letter and what composes with it); a piece of a
    cluster that folding changes stands for the whole cluster."""
    if text == folded:
        return spans
    starts: list[int] = []  # per folded character
    ends: list[int] = []
    for a, b, made in _clusters(text, fold):
        if made == text[a:b]:
            starts += range(a, b)
            ends += range(a + 1, b + 1)
        else:
            starts += [a] * len(made)
            ends += [b] * len(made)
    if len(starts) != len(folded):  # clusters did not fold independently: only the whole is certain
        return [(0, len(text))] * len(spans)
    starts.append(len(text))
    return [(starts[a], ends[b - 1] if b > a else starts[a]) for a, b in spans]


def _clusters(text: str, fold: Callable[[str], str]) -> list[tuple[int, int, str]]:
    """(start, end, folded) of each cluster: a new one begins at a starter that does not compose with the last."""
    made: list[tuple[int, int, str]] = []
    start, folded = 0, ""
    marks = False  # combining marks since the last fold
    for i, c in enumerate(text):
        alone = c if c.isascii() else ""
        if i == start:
            folded, marks = alone or fold(c), False
            continue
        if unicodedata.combining(c):
            marks = True
            continue
        if marks:
            folded, marks = fold(text[start:i]), False
        if alone or not _composes(text[max(start, i - 4) : i], c):
            made.append((start, i, folded))
            start, folded = i, fold(c)
        else:
            folded = fold(text[start : i + 1])
    if text:
        made.append((start, len(text), fold(text[start:]) if marks else folded))
    return made


def _composes(last: str, c: str) -> bool:
    """Whether a starter joins what stands before it: Hangul vowels and finals, and a few Indic vowel signs."""
    nfc = unicodedata.normalize
    return nfc("NFC", last + c) != nfc("NFC", last) + nfc("NFC", c)


def with_marks(text: str, spans: Spans) -> Spans:
    """Spans that end before a combining mark or a joining Hangul letter take it in, unless it has a piece of its own.

    A normaliser that composes "e" + U+0301 leaves the mark without a span."""
    if text.isascii():
        return spans
    covered = {i for a, b in spans for i in range(a, b)}
    made = []
    for a, b in spans:
        end = b
        while a < b and end < len(text) and end not in covered and _joins(text[end]):
            end += 1
        made.append((a, end))
    return made


def _joins(c: str) -> bool:
    return "\u1160" <= c <= "\u11ff" or unicodedata.category(c) in ("Mn", "Mc", "Me")
