"""What happens to text before and after the vocabulary, and the file that says so to other programs.

fold   NFC -> lower case (asked for) -> NFC, or NFD for jamo        in Python, so that offsets can be kept
cut    one space is put in front; then cut before spaces and around "<"  (unigram, bpe)
       " word" | " punctuation" | white space                            (wordpiece, words)
model  ids
join   byte pieces -> characters, all in a row, minus the one space; NFC

A space is a plain space here, never "▁", so a "▁" that somebody types is not mistaken for one.  "<" always stands
alone: no text can match a piece named "<eos>" or "<0x41>".  `document` writes the same as a Hugging Face tokenizer.json.
"""

import re
from functools import cache
from typing import Any, Protocol

from ..errors import DataError
from .config import TextConfig

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
UNK = 3
BYTES = tuple(f"<0x{i:02X}>" for i in range(256))
BYTE_KINDS = (
    "unigram",
    "bpe",
    "bytes",
)  # what has no piece is spelt in UTF-8 bytes: nothing is lost
PREFIX_KINDS = ("unigram", "bpe", "wordpiece", "words")  # one space in front: "the" = " the"
CUT = re.compile("<| [^ <]*|[^ <]+")  # the two Splits of unigram and bpe, for `sample`
WORD = r" ?[\p{L}\p{N}\p{M}]+| ?[^\s\p{L}\p{N}\p{M}]|\s"


class _Normalizer(Protocol):
    def normalize_str(self, sequence: str) -> str: ...


@cache
def _form(name: str) -> _Normalizer:
    # Python's own normaliser sorts runs of combining marks by insertion: quadratic on hostile text.
    from tokenizers import normalizers

    made: _Normalizer = getattr(normalizers, name)()
    return made


def normal(text: str, config: TextConfig) -> str:
    """What decode(encode(text)) gives back where nothing is unknown: NFC(lower(NFC(text))); bytes: no NFC.

    Raises DataError on a lone surrogate, which is no character."""
    check_characters(text)
    if config.kind == "bytes":
        return lower(text) if config.lowercase else text
    text = _nfc(text)
    return _nfc(lower(text)) if config.lowercase else text


def fold(text: str, config: TextConfig) -> str:
    """What the vocabulary sees, without the space in front: `normal`, and its NFD for jamo."""
    text = normal(text, config)
    return _form("NFD").normalize_str(text) if config.jamo and not text.isascii() else text


def check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise DataError(
            f"lone surrogate U+{ord(text[e.start]):04X}",
            place=f"character {e.start}",
            fix="read the text as UTF-8",
            code="QKV-030",
        ) from None


def lower(text: str) -> str:
    """Lower case character by character: str.lower would look around a capital sigma."""
    return "".join(c.lower() for c in text) if "Σ" in text else text.lower()


def _nfc(text: str) -> str:
    return text if text.isascii() else _form("NFC").normalize_str(text)


def recompose(text: str, config: TextConfig) -> str:
    """The last step of decode: NFC, but for bytes, which are given back as they came."""
    return text if config.kind == "bytes" else _nfc(text)


def prefix(folded: str, config: TextConfig) -> str:
    return " " + folded if folded and config.kind in PREFIX_KINDS else folded


def document(config: TextConfig, model: dict[str, Any]) -> dict[str, Any]:
    """The whole tokenizer.json: everything but `model` follows from the settings."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(i, s) for i, s in _numbered(config, len(model["vocab"]))],
        "normalizer": _normalizer(config),
        "pre_tokenizer": cutter(config),
        "post_processor": None,
        "decoder": _decoder(config),
        "model": model,
    }


def _numbered(config: TextConfig, size: int) -> list[tuple[int, str]]:
    """Four specials are the first ids, those of the settings the last."""
    last = enumerate(config.specials, size - len(config.specials))
    return [*enumerate(SPECIALS), *last]


def _special(i: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, **flags, "special": True}


def _normalizer(config: TextConfig) -> dict[str, Any] | None:
    lowered = [{"type": "Lowercase"}] if config.lowercase else []
    if config.kind == "bytes":
        return {"type": "Sequence", "normalizers": lowered} if lowered else None
    last = [{"type": "NFD" if config.jamo else "NFC"}]
    steps: list[dict[str, Any]] = [{"type": "NFC"}, *lowered, *last] if lowered else last
    if config.kind in PREFIX_KINDS:
        steps = [*steps, {"type": "Prepend", "prepend": " "}]
    return {"type": "Sequence", "normalizers": steps}


def _split(pattern: dict[str, str], behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}


def cutter(config: TextConfig) -> dict[str, Any] | None:
    """The pre-tokeniser; None for bytes."""
    if config.kind in ("unigram", "bpe"):
        cuts = [_split({"String": " "}, "MergedWithNext"), _split({"String": "<"}, "Isolated")]
        return {"type": "Sequence", "pretokenizers": cuts}
    if config.kind == "bytes":
        return None
    return _split({"Regex": r"(?m:.)" if config.kind == "chars" else WORD}, "Isolated")


def _decoder(config: TextConfig) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if config.kind in BYTE_KINDS:
        steps.append({"type": "ByteFallback"})
    if config.kind == "wordpiece":
        steps.append({"type": "Replace", "pattern": {"Regex": "^##"}, "content": ""})
    steps.append({"type": "Fuse"})
    if config.kind in PREFIX_KINDS:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
