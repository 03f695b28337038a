"""Reads a sentencepiece model file: protocol buffers, so much of them as the file needs, every length checked.

Field numbers: sentencepiece_model.proto of google/sentencepiece.  Nothing here runs the model.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from ..errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # SentencePiece.type
UNIGRAM, BPE = 1, 2  # TrainerSpec.model_type
MAX_PIECES = 1 << 21


@dataclass(frozen=True)
class Spm:
    """What a .spm or .model file holds: pieces as (text, score, type), ids being their order."""

    pieces: tuple[tuple[str, float, int], ...]
    model_type: int
    unk_id: int
    byte_fallback: bool
    charsmap: bytes  # the compiled normaliser; empty: none


def read_spm(data: bytes, place: str) -> Spm:
    """Raises TokenizerError where the bytes are no sentencepiece model."""
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for field, value in _fields(data):
            if field == 1:
                pieces.append(_piece(dict(_fields(_bytes(value)))))
            elif field == 2:
                trainer = dict(_fields(_bytes(value)))
            elif field == 3:
                normalizer = dict(_fields(_bytes(value)))
            if len(pieces) > MAX_PIECES:
                raise ValueError(f"more than {MAX_PIECES} pieces")
    except ValueError as e:
        _refuse(f"not a sentencepiece model: {e}", place)
    made = Spm(
        pieces=tuple(pieces),
        model_type=_int(trainer.get(3, UNIGRAM)),
        unk_id=_int(trainer.get(40, 0)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=bytes(_bytes(normalizer.get(2, b""))),
    )
    _check(made, place)
    return made


def read_spans(data: bytes, text: str) -> list[tuple[int, int]]:
    """Characters of `text` that each piece of a serialised SentencePieceText stands for; the file counts bytes."""
    at_byte: list[int] = []
    for at, c in enumerate(text):
        at_byte += [at] * len(c.encode())
    at_byte.append(len(text))
    pieces = (dict(_fields(_bytes(value))) for field, value in _fields(data) if field == 2)
    return [(at_byte[_int(p.get(4, 0))], at_byte[_int(p.get(5, 0))]) for p in pieces]


def _check(spm: Spm, place: str) -> None:
    texts = [text for text, _, _ in spm.pieces]
    if not texts:
        _refuse("not a sentencepiece model: it has no pieces", place)
    if len(set(texts)) != len(texts):
        _refuse("a piece occurs twice", place)
    if not 0 <= spm.unk_id < len(texts):
        _refuse(f"unk_id {spm.unk_id} is not one of {len(texts)} pieces", place)


def _refuse(seen: str, place: str) -> NoReturn:
    raise TokenizerError(seen, place=place, fix="copy or fetch the file again")


def _piece(fields: dict[int, int | bytes]) -> tuple[str, float, int]:
    text = _bytes(fields.get(1, b"")).decode("utf-8")  # UnicodeDecodeError is a ValueError
    raw = _bytes(fields.get(2, b"\0\0\0\0"))
    if not text or len(raw) != 4:
        raise ValueError("a piece without text or with a malformed score")
    (score,) = struct.unpack("<f", raw)
    if not math.isfinite(score):
        raise ValueError(f"piece {text[:40]!r} has the score {score}")
    return text, score, _int(fields.get(3, NORMAL))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a message: an int for a varint, else the bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            number, at = _varint(data, at)
            yield field, number
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if not field or size > len(data) - at:
            raise ValueError(f"cut short or damaged at byte {at}")
        yield field, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError(f"cut short at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"a number of more than 10 bytes before byte {at}")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")
    return value
