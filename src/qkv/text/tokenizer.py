"""One Tokenizer for every kind: text -> ids with character offsets, and back.

The vocabulary is a Hugging Face tokenizer.json run by the Rust library; normalising, offsets into the caller's own
text and sub-word sampling are here, since they must be exact, seedable and the same for every kind.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import TokenizerError, named
from .align import original_spans, piece_spans
from .check import SETTINGS_FILE, TOKENIZER_FILE, parse_files, read_files, rust
from .config import TextConfig
from .pipeline import PREFIX_KINDS, UNK, document, fold, normal, prefix, recompose
from .sample import Sampler, sampler

VERSION = 1


class Encoding:
    """ids, and for each the (start, end) characters of the caller's text that it stands for.

    Offsets are worked out when first asked for: training never asks."""

    __slots__ = ("ids", "_text", "_spans", "_offsets")

    def __init__(
        self, ids: list[int], text: str, spans: Callable[[str], list[tuple[int, int]]]
    ) -> None:
        self.ids = ids
        self._text, self._spans = text, spans
        self._offsets: list[tuple[int, int]] | None = None

    @property
    def offsets(self) -> list[tuple[int, int]]:
        if self._offsets is None:
            self._offsets = self._spans(self._text)
        return self._offsets

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Encoding) and self.ids == other.ids
        return same and self.offsets == other.offsets  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Encoding(ids={self.ids}, offsets={self.offsets})"


class Tokenizer:
    """text <-> ids.  decode(encode(x)) == normal(x) for unigram, bpe and bytes; the other kinds lose what is unknown.

    User text never yields the id of a special token but <unk>; encode adds none either.
    Built by `train` and `load`; raises TokenizerError when the model does not fit the settings."""

    pad_id, bos_id, eos_id, unk_id = 0, 1, 2, UNK
    cls_id = sep_id = None  # published tokenizers may have them

    def __init__(self, config: TextConfig, model: dict[str, Any]) -> None:
        self.config, self._model = config, model
        self._rust = rust(config, model)
        entries = model["vocab"]
        by_id = entries if isinstance(entries, list) else sorted(entries, key=entries.__getitem__)
        self._pieces: list[str] = [e[0] if isinstance(e, list) else e for e in by_id]

    def __reduce__(self) -> tuple[type, tuple[TextConfig, dict[str, Any]]]:
        # the library's own pickle forgets that specials in a text are text
        return Tokenizer, (self.config, self._model)

    @property
    def kind(self) -> str:
        return self.config.kind

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def __repr__(self) -> str:
        return f"Tokenizer(kind={self.kind!r}, vocab_size={self.vocab_size})"

    @property
    def mask_id(self) -> int | None:
        """Of "<mask>", where the settings' `specials` have it."""
        return self.id_of("<mask>")

    def normal(self, text: str) -> str:
        """What the tokeniser promises to keep of a text: NFC, in lower case if so set; bytes: every character."""
        return normal(text, self.config)

    def encode(self, text: str) -> Encoding:
        """Raises DataError on a lone surrogate."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        ready = [prefix(fold(t, self.config), self.config) for t in texts]
        made = self._rust.encode_batch_fast(ready, add_special_tokens=False)
        return [Encoding(e.ids, t, self._spans) for e, t in zip(made, texts, strict=True)]

    def around(self, parts: Sequence[str], special: int) -> list[int]:
        """The ids of a text that was cut where a special token stands; that token has the place of the space before it,
        as a word has."""
        words = self.kind in PREFIX_KINDS
        ready = [fold(part, self.config) for part in parts]
        ready[:-1] = [part.removesuffix(" ") if words else part for part in ready[:-1]]
        ready[0] = prefix(ready[0], self.config)
        first, *rest = self._rust.encode_batch_fast(ready, add_special_tokens=False)
        ids: list[int] = list(first.ids)
        for made in rest:
            ids += [special, *made.ids]
        return ids

    def _spans(self, text: str) -> list[tuple[int, int]]:
        folded = fold(text, self.config)
        ready = prefix(folded, self.config)
        made = self._rust.encode(ready, add_special_tokens=False)
        spans = made.offsets
        if self.kind == "unigram":  # the library gives all byte pieces of a run the span of the run
            spans = piece_spans([self._pieces[i] for i in made.ids])
        gap = len(ready) - len(folded)
        spans = [(max(0, a - gap), max(0, b - gap)) for a, b in spans]
        return original_spans(text, folded, spans, lambda part: fold(part, self.config))

    def sample(self, text: str, rng: random.Random, alpha: float) -> list[int]:
        """A random way to cut the text, a pure function of (text, alpha, state of rng); alpha in [0, 1], 0 is encode.

        bpe: each merge is dropped with probability alpha (Provilkov et al. 2020, section 3).
        unigram: p(cut) ~ P(cut) ** (1 / alpha - 1) (Kudo 2018, section 3.2; 1/2 is the model's own law, 1 is uniform).
        Other kinds: encode.  Raises TokenizerError when alpha is outside [0, 1]."""
        if not 0 <= alpha <= 1:
            raise TokenizerError(f"alpha must be from 0 to 1 (got {alpha!r})", fix="try 0.1")
        if alpha == 0 or self._sampler is None:
            return self.encode(text).ids
        return self._sampler.sample(prefix(fold(text, self.config), self.config), rng, alpha)

    @cached_property
    def _sampler(self) -> Sampler | None:
        return sampler(self.config, self._model, self._whole)

    def _whole(self, word: str) -> list[int]:
        ids: list[int] = self._rust.encode(word, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text, specials skipped, NFC.  Raises TokenizerError on an id that is not in the vocabulary."""
        text: str = self._rust.decode(self._known(ids), skip_special_tokens=True)
        return recompose(text, self.config)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The pieces for display: a space is shown as "▁", a byte as "<0xEC>", a special by its name."""
        return [self._pieces[i].replace(" ", "▁") for i in self._known(ids)]

    @property
    def target(self) -> "Tokenizer":
        """The side of labels: itself.  Marian's published tokenizers have two."""
        return self

    def id_of(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary has it; None: there is none."""
        made: int | None = self._rust.token_to_id(piece)
        return made

    def _known(self, ids: Iterable[int]) -> list[int]:
        made = [int(i) for i in ids]
        for at, i in enumerate(made):
            if not 0 <= i < len(self._pieces):
                raise TokenizerError(
                    f"id {i} is not in a vocabulary of {len(self._pieces)}",
                    place=f"position {at}",
                    fix="use the tokenizer that the model was trained with",
                    code="QKV-041",
                )
        return made

    def files(self) -> dict[str, bytes]:
        """What to store: tokenizer.json, which Hugging Face libraries load, and our settings beside it."""
        text = asdict(self.config)
        if not self.config.specials:  # as it was written before there were any: fingerprints stay
            del text["specials"]
        settings = {"version": VERSION, "text": text}
        return {
            TOKENIZER_FILE: _json(document(self.config, self._model)),
            SETTINGS_FILE: _json(settings),
        }

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over names, lengths and bytes of files()."""
        h = hashlib.sha256()
        for name, data in sorted(self.files().items()):
            h.update(f"{name}\n{len(data)}\n".encode() + data)
        return h.hexdigest()

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read what files() gave.  Raises MissingError, or TokenizerError with the file and the reason."""
        return cls.from_files(read_files(Path(folder)), place=folder)

    @classmethod
    def from_files(cls, files: dict[str, bytes], *, place: object = "") -> "Tokenizer":
        """Read what files() gave, from memory; `place` is named in errors."""
        config, model = parse_files(files, place)
        with named(place):
            return cls(config, model)


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
