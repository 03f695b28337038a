"""What runs a published vocabulary: the `tokenizers` library, or for Marian a pair of sentencepiece models.

Both keep the same promise: without `specials` no text yields the id of a special token.  The library alone does not:
it skips the *added* tokens of a text, but a Unigram model has "</s>" among its pieces and finds it there.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

from ..errors import MissingError
from .build import build
from .frame import Frame, read_frame
from .gate import library
from .layouts import Settings, Source
from .specials import refuse
from .spm import read_spans

Spans = list[tuple[int, int]]


class Engine(Protocol):
    """What `Published` asks of the code that knows the vocabulary."""

    kind: str
    size: int
    frame: Frame

    def ids(self, texts: Sequence[str], specials: bool) -> list[list[int]]: ...
    def spans(self, text: str, specials: bool) -> Spans: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def piece(self, at: int) -> str | None: ...
    def id_of(self, piece: str) -> int | None: ...
    def normal(self, text: str) -> str: ...


PROBE = "a b. 안 \U0010fffd"  # the last has no piece: a model that cannot say <unk> fails here, not later
KINDS = {"WordPiece": "wordpiece", "BPE": "bpe", "Unigram": "unigram", "WordLevel": "words"}


class RustEngine:
    """A `tokenizers.Tokenizer` three times: as it is; matching special tokens; and one in which no text can match them."""

    def __init__(self, make: Callable[[], Any], special: frozenset[str], place: str) -> None:
        self._make, self._place = make, place
        self._plain = make()
        self._plain.encode_special_tokens = True
        added = self._plain.get_added_tokens_decoder()
        self._special = special | {t.content for t in added.values() if t.special}
        ids = {self._plain.token_to_id(t) for t in self._special}
        self._forbidden = frozenset(i for i in ids if i is not None)
        self.kind = KINDS[type(self._plain.model).__name__]
        self.size = 1 + max(self._plain.get_vocab(with_added_tokens=True).values())
        after = self._plain.post_processor
        self.frame = read_frame(None if after is None else json.loads(after.__getstate__()), place)
        for i in [i for i, _ in (*self.frame.single, *self.frame.pair) if isinstance(i, int)]:
            if self._plain.id_to_token(i) is None:
                refuse(f"post_processor adds the id {i}, which no token has", place)
        library(lambda: self._run(self._plain, [PROBE]), place)

    @cached_property
    def _matching(self) -> Any:
        made = self._make()
        made.encode_special_tokens = False
        return made

    @cached_property
    def _guard(self) -> Any:
        """The same vocabulary with every special token under a name that nobody can type: ids stay."""
        from tokenizers import Tokenizer

        value = json.loads(self._plain.to_str())
        name = {t: secrets.token_hex(16) for t in self._special}
        model = value["model"]
        for added in value["added_tokens"]:
            added["content"] = name.get(added["content"], added["content"])
        if isinstance(model["vocab"], list):
            model["vocab"] = [[name.get(p, p), score] for p, score in model["vocab"]]
        else:
            model["vocab"] = {name.get(p, p): i for p, i in model["vocab"].items()}
        if "merges" in model:
            prefix = len(model.get("continuing_subword_prefix") or "")
            pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
            made = ({a, b, a + b[prefix:]} for a, b in pairs)
            model["merges"] = [p for p, m in zip(pairs, made, strict=True) if not m & set(name)]
        if model.get("unk_token") is not None:
            model["unk_token"] = name.get(model["unk_token"], model["unk_token"])
        value["post_processor"] = None
        guard = library(lambda: Tokenizer.from_str(json.dumps(value)), self._place)
        guard.post_processor = self._trim()
        guard.encode_special_tokens = True
        return guard

    def _trim(self) -> Any:
        """What the post-processor does to offsets, without what it adds."""
        from tokenizers import processors

        after = self._plain.post_processor
        state = {} if after is None else json.loads(after.__getstate__())
        for step in state.get("processors", [state]):
            if step.get("type") in ("ByteLevel", "RobertaProcessing") and step.get("trim_offsets"):
                return processors.ByteLevel(trim_offsets=True)
        return None

    def _run(self, rust: Any, texts: Sequence[str]) -> list[list[int]]:
        made = rust.encode_batch_fast(list(texts), add_special_tokens=False)
        return [e.ids for e in made]

    def ids(self, texts: Sequence[str], specials: bool) -> list[list[int]]:
        if specials:
            return library(lambda: self._run(self._matching, texts), self._place)
        made = library(lambda: self._run(self._plain, texts), self._place)
        rows = [r for r, ids in enumerate(made) if not self._forbidden.isdisjoint(ids)]
        if rows:
            again = library(partial(self._run, self._guard, [texts[r] for r in rows]), self._place)
            for row, ids in zip(rows, again, strict=True):
                made[row] = ids
        return made

    def spans(self, text: str, specials: bool) -> Spans:
        def encode(rust: Any) -> Any:
            return library(lambda: rust.encode(text, add_special_tokens=False), self._place)

        made = encode(self._matching if specials else self._plain)
        if not specials and not self._forbidden.isdisjoint(made.ids):
            made = encode(self._guard)
        return list(made.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = library(
            lambda: self._plain.decode(list(ids), skip_special_tokens=True), self._place
        )
        return text

    def piece(self, at: int) -> str | None:
        made: str | None = self._plain.id_to_token(at)
        if made is None or made in self._special or not self._byte_level:
            return made
        return _readable(made)

    @cached_property
    def _byte_level(self) -> bool:
        decoder = self._plain.decoder
        return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()

    def id_of(self, piece: str) -> int | None:
        made: int | None = self._plain.token_to_id(piece)
        return made

    def normal(self, text: str) -> str:
        steps = self._plain.normalizer
        if steps is None:
            return text
        made: str = library(lambda: steps.normalize_str(text), self._place)
        return made


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable Latin-1 stands for itself, the rest for U+0100 on, in order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


BYTE_OF = _byte_alphabet()


def _readable(piece: str) -> str:
    """A byte-level piece as text; bytes that are no whole characters as <0xEC>."""
    if any(c not in BYTE_OF for c in piece):
        return piece
    data = bytes(BYTE_OF[c] for c in piece)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(f"<0x{b:02X}>" for b in data)


PROTO: Any = "serialized_proto"  # the one form with offsets that every version of the library gives


class SpmEngine:
    """One side of a Marian model: sentencepiece cuts, vocab.json numbers the pieces; both sides share the numbers."""

    kind = "unigram"

    def __init__(
        self, side: bytes, vocab: Mapping[str, int], special: Mapping[str, int], place: str
    ) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ModuleNotFoundError:
            raise MissingError(
                "Marian's tokenizer needs sentencepiece",
                place=place,
                fix="pip install sentencepiece",
                code="QKV-022",
            ) from None

        self._vocab, self._special = vocab, dict(special)
        self._place, self._unk, self._eos = place, special["unk"], special["eos"]
        self._spm = library(lambda: SentencePieceProcessor(model_proto=side), place)
        self._by_id = {i: p for p, i in vocab.items()}
        self.size = 1 + max(self._by_id)
        self.frame = Frame((("A", 0), (self._eos, 0)), (("A", 0), ("B", 0), (self._eos, 0)))
        names = sorted((self._by_id[i] for i in set(special.values())), key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, names)) + ")")
        self._names = frozenset(names)

    def _parts(self, text: str, specials: bool) -> list[tuple[int, str]]:
        """(start, part): the text cut around special tokens, or whole."""
        parts = self._cut.split(text) if specials else [text]
        made, at = [], 0
        for part in parts:
            made.append((at, part))
            at += len(part)
        return [(start, part) for start, part in made if part]

    def _walk(self, text: str, specials: bool) -> Iterator[tuple[int, str, int | None]]:
        """(start, part, id): special tokens and language codes have an id, the rest is for sentencepiece.

        ">>ko<<" at the start of a part is a language code."""
        for start, part in self._parts(text, specials):
            if specials and part in self._names:
                yield start, part, self._vocab[part]
                continue
            end = part.find("<<") + 2 if part.startswith(">>") else 1
            if end > 1:
                yield start, part[:end], self._number(part[:end])
                start, part = start + end, part[end:]
            yield start, part, None

    def _ids(self, text: str, specials: bool) -> list[int]:
        made: list[int] = []
        for _, part, at in self._walk(text, specials):
            pieces = self._spm.encode(part, out_type=str) if at is None else []
            made += [self._number(p) for p in pieces] if at is None else [at]
        return made

    def ids(self, texts: Sequence[str], specials: bool) -> list[list[int]]:
        return library(lambda: [self._ids(text, specials) for text in texts], self._place)

    def spans(self, text: str, specials: bool) -> Spans:
        made: Spans = []
        for start, part, at in self._walk(text, specials):
            if at is not None:
                made.append((start, start + len(part)))
                continue
            whole = library(partial(self._spm.encode, part, out_type=PROTO), self._place)
            made += [(start + a, start + b) for a, b in read_spans(whole, part)]
        return made

    def _number(self, piece: str) -> int:
        return self._unk if piece in self._names else self._vocab.get(piece, self._unk)

    def decode(self, ids: Sequence[int]) -> str:
        pieces = [self._by_id[i] for i in ids if i not in self._special.values()]
        text: str = library(lambda: self._spm.decode_pieces(pieces), self._place)
        return text.replace("▁", " ").strip()

    def piece(self, at: int) -> str | None:
        return self._by_id.get(at)

    def id_of(self, piece: str) -> int | None:
        return self._vocab.get(piece)

    def normal(self, text: str) -> str:
        made: str = library(lambda: self._spm.normalize(text), self._place)
        return made


def rust_engine(source: Source, layout: str, settings: Settings, place: str) -> RustEngine:
    special = frozenset(
        t.content for t in (*settings.specials.named.values(), *settings.specials.extra)
    )
    return RustEngine(lambda: build(source, layout, settings), special, place)
