"""What to train: the settings of a tokeniser."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ConfigError, did_you_mean

Kind = Literal["unigram", "bpe", "wordpiece", "words", "chars", "bytes"]
KINDS: tuple[str, ...] = get_args(Kind)
MAX_VOCAB = 1_000_000
SPECIAL = re.compile(r"<(?!0x|pad>|bos>|eos>|unk>)[a-z0-9_]{1,60}>")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings of a tokeniser; `vocab_size` counts everything, the four specials and the 256 byte pieces too.

    Raises ConfigError on an unknown kind, a number out of range, a special token that cannot be one, or jamo for bytes."""

    kind: Kind = "unigram"
    vocab_size: int = 8000  # at most; a small corpus fills fewer.  bytes: always 260
    lowercase: bool = False
    jamo: bool = False  # the model sees Hangul letter by letter (NFD); decode gives syllables (NFC)
    sample_alpha: float = 0.0  # what training passes to `sample`: 0 never, 1 wildest
    min_count: int = 1  # rarer characters (words: rarer words) get no piece of their own
    specials: tuple[str, ...] = ()  # further special tokens, the last ids: "<mask>", "<extra_id_0>"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"kind {self.kind!r} is not a kind of tokeniser", fix=did_you_mean(self.kind, KINDS)
            )
        _between("vocab_size", self.vocab_size, 5, MAX_VOCAB, "try 8000")
        _between("sample_alpha", self.sample_alpha, 0, 1, "try 0.1")
        _between("min_count", self.min_count, 1, 1 << 53, "try 1")
        for name in self.specials:
            if not SPECIAL.fullmatch(name) or self.specials.count(name) > 1:
                raise ConfigError(
                    f"specials: {name!r} is taken, twice there, or no <name> in small letters",
                    fix='specials = ["<mask>"]',
                )
        if self.jamo and self.kind == "bytes":
            raise ConfigError(
                "jamo = true changes the text, but kind = 'bytes' keeps every byte as it is",
                fix="choose jamo = false, or kind = 'chars'",
                code="QKV-013",
            )


def _between(name: str, value: float, low: float, high: float, fix: str) -> None:
    if isinstance(value, bool) or not low <= value <= high:  # NaN fails too
        raise ConfigError(f"{name} must be from {low} to {high} (got {value!r})", fix=fix)
