"""How a token looks: word marks removed, specials as one sign each, hidden characters made visible, length bounded."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

WORD_MARKS = ("▁", "Ġ")  # sentencepiece's and byte-level BPE's "a space was here"
INSIDE_MARK = "##"  # WordPiece's "no space here"
MAX_CHARS = 48
SIGNS = {"eos": "⏎", "bos": "▸", "pad": "□", "unk": "⟨?⟩", "mask": "■"}
SPECIALS = {
    "<eos>": "eos", "</s>": "eos", "[SEP]": "eos", "<|endoftext|>": "eos",
    "<bos>": "bos", "<s>": "bos", "[CLS]": "bos",
    "<pad>": "pad", "[PAD]": "pad",
    "<unk>": "unk", "[UNK]": "unk",
    "<mask>": "mask", "[MASK]": "mask",
}  # fmt: skip
JOINERS = "\u200c\u200d"  # they shape emoji and scripts; hiding them would change the letters


@dataclass(frozen=True)
class Token:
    """`kind`: a word starts here, a piece goes on, or a special, whose name is eos, bos, pad, unk or mask."""

    text: str
    kind: Literal["word", "piece", "special"] = "word"
    name: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"text": self.text, "kind": self.kind} | ({"name": self.name} if self.name else {})


def display(tokens: Iterable[str]) -> list[Token]:
    """What to show for a sentence's tokens.  Where no token bears a mark, every token is a word of its own."""
    rows = list(tokens)
    marked = any(r.startswith(WORD_MARKS) for r in rows)
    return [_one(r, marked) for r in rows]


def _one(raw: str, marked: bool) -> Token:
    if name := SPECIALS.get(raw):
        return Token(SIGNS[name], "special", name)
    if raw.startswith(WORD_MARKS):
        return Token(visible(raw[1:]) or "␣", "word")
    if raw.startswith(INSIDE_MARK) and len(raw) > len(INSIDE_MARK):
        return Token(visible(raw[len(INSIDE_MARK) :]), "piece")
    return Token(visible(raw) or "∅", "piece" if marked else "word")


def visible(text: str, limit: int = MAX_CHARS) -> str:
    """The text in NFC with every control, format and surrogate character spelled out, at most `limit` characters."""
    text = unicodedata.normalize("NFC", text[: 4 * limit])
    shown = "".join(map(_sign, text[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _sign(c: str) -> str:
    point = ord(c)
    if point < 0x20:
        return chr(0x2400 + point)  # control pictures: ␀ … ␟
    if c == "▁":
        return " "
    hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return f"⟨U+{point:04X}⟩" if hidden and c not in JOINERS else c


def group(tokens: Sequence[Token], size: int, limit: int = 24) -> list[Token]:
    """Neighbouring tokens joined `size` at a time, for maps too large to show token by token."""
    if size == 1:
        return list(tokens)
    parts = [tokens[i : i + size] for i in range(0, len(tokens), size)]
    joined = ("".join((" " if t.kind == "word" else "") + t.text for t in p).strip() for p in parts)
    return [Token(j if len(j) <= limit else j[: limit - 1] + "…") for j in joined]


def romanise(text: str) -> str:
    """Hangul syllables spelled in Latin letters, one by one (Revised Romanization 2000, without sound changes)."""
    return "".join(map(_roman, text))


INITIALS = "g kk n d tt r m b pp s ss - j jj ch k t p h".replace("-", "").split(" ")
VOWELS = "a ae ya yae eo e yeo ye o wa wae oe yo u wo we wi yu eu ui i".split(" ")
FINALS = " k k k n n n t l k m l l l p l m p p t t ng t t k t p t".split(" ")


def _roman(c: str) -> str:
    index = ord(c) - 0xAC00
    if not 0 <= index < 11172:
        return c
    return INITIALS[index // 588] + VOWELS[index % 588 // 28] + FINALS[index % 28]
