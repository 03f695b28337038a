"""Tokenizers of published models, read from the files they come in, with the face of our own `Tokenizer`.

ids are those of `transformers` with split_special_tokens=True; where even that lets the text "</s>" become the
special token, ours are those of the text as any other (test_special_text_is_text).
"""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from .align import with_marks
from .engines import Engine, SpmEngine, rust_engine
from .gate import check_size, check_vocab, read_folder, read_object
from .layouts import LAYOUTS, Settings, Source, layout_of, read_settings
from .pipeline import check_characters
from .specials import CONFIG, NAMES, refuse
from .spm import read_spm
from .tokenizer import Encoding

CLEAN = (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're")  # loses the space in front
MODEL_KEYS = ("model_type", "tokenizer_class")


class Published:
    """text <-> ids of a published model.  Built by `load` and `from_files`.

    The special ids are ints or None: pad_id bos_id eos_id unk_id cls_id sep_id mask_id."""

    pad_id: int | None
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    cls_id: int | None
    sep_id: int | None
    mask_id: int | None

    def __init__(
        self,
        engine: Engine,
        source: Source,
        settings: Settings,
        target: Engine | None = None,
        side: str = "source",
    ) -> None:
        self._engine, self._source, self._settings = engine, source, settings
        self._target, self._side = target, side
        self.layout = layout_of(source)
        for name in NAMES:
            token = settings.specials.named.get(name)
            setattr(self, f"{name}_id", None if token is None else engine.id_of(token.content))

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._source
        return _again, (dict(source.files), dict(source.model), source.place, self._side)

    @property
    def kind(self) -> str:
        """wordpiece, bpe, unigram or words: the model that cuts."""
        return self._engine.kind

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: so many rows an embedding needs at least."""
        return self._engine.size

    def __repr__(self) -> str:
        return (
            f"Published(layout={self.layout!r}, kind={self.kind!r}, vocab_size={self.vocab_size})"
        )

    @cached_property
    def target(self) -> "Published":
        """The side that labels and answers are written in: Marian has a second one, all others are their own."""
        if self._target is None:
            return self
        return Published(self._target, self._source, self._settings, side="target")

    def normal(self, text: str) -> str:
        """The text as the vocabulary's normaliser leaves it: what the pieces spell."""
        check_characters(text)
        return self._engine.normal(text)

    def encode(self, text: str, specials: bool = False) -> Encoding:
        """ids without frame.  specials: "<mask>", "<extra_id_0>" in the text become those tokens: for texts of ours
        only, never a user's.  Raises DataError on a lone surrogate."""
        return self.encode_batch([text], specials)[0]

    def encode_batch(self, texts: Sequence[str], specials: bool = False) -> list[Encoding]:
        for text in texts:
            check_characters(text)
        made = self._engine.ids(texts, specials)
        spans = partial(self._spans, specials=specials)
        return [Encoding(ids, text, spans) for ids, text in zip(made, texts, strict=True)]

    def _spans(self, text: str, specials: bool) -> list[tuple[int, int]]:
        return with_marks(text, self._engine.spans(text, specials))

    def sample(self, text: str, rng: random.Random, alpha: float) -> list[int]:
        """encode(text).ids: published vocabularies are not sampled."""
        return self.encode(text).ids

    def frame(
        self, ids: Sequence[int], pair: Sequence[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """(ids, segment ids) with what the family puts around a text or a pair: [CLS] a [SEP] b [SEP], a </s>, ..."""
        return self._engine.frame(ids, pair)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of an answer, special tokens skipped.  Raises TokenizerError on an id that no token has."""
        engine = self._target or self._engine
        text = engine.decode(self._known(ids, engine))
        if self.kind != "bpe" and self._settings.config.get("clean_up_tokenization_spaces") is True:
            for found in CLEAN[:4]:
                text = text.replace(found, found[1:])
            text = text.replace(" ' ", "'")
            for found in CLEAN[4:]:
                text = text.replace(found, found[1:])
        return text

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The pieces for display: a space is shown as "▁", a byte as "<0xEC>", a special by its name.

        They are of this side: the pieces of an answer are `target.tokens`."""
        engine = self._engine
        return [str(engine.piece(i)).replace(" ", "▁") for i in self._known(ids, engine)]

    def id_of(self, piece: str) -> int | None:
        """The id of a piece or special token as the files write it ("<extra_id_0>", "ko_KR", ">>ko<<"); None: there is none."""
        return self._engine.id_of(piece)

    def _known(self, ids: Iterable[int], engine: Engine) -> list[int]:
        made = [int(i) for i in ids]
        for at, i in enumerate(made):
            if not 0 <= i < engine.size or engine.piece(i) is None:
                raise TokenizerError(
                    f"id {i} is not in a vocabulary of {engine.size}",
                    place=f"position {at}",
                    fix="use the tokenizer that the model was trained with",
                    code="QKV-041",
                )
        return made

    @cached_property
    def holes(self) -> tuple[int, ...]:
        """The ids below vocab_size that no token has."""
        return tuple(i for i in range(self.vocab_size) if self._engine.piece(i) is None)

    def files(self) -> dict[str, bytes]:
        """The files it was read from, unchanged: written into a folder, `transformers` loads them again."""
        return dict(self._source.files)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over names, lengths and bytes of files()."""
        h = hashlib.sha256()
        for name, data in sorted(self._source.files.items()):
            h.update(f"{name}\n{len(data)}\n".encode() + data)
        return h.hexdigest()

    @classmethod
    def load(cls, folder: str | Path) -> "Published":
        """Read a model folder.  Raises MissingError, or TokenizerError with the file and the reason."""
        folder = Path(folder)
        config = read_folder(folder, ("config.json",)).get("config.json")
        model = {} if config is None else read_object(config, str(folder / "config.json"))
        return cls.from_files(read_folder(folder), model, place=folder)

    @classmethod
    def from_files(
        cls,
        files: Mapping[str, bytes],
        model: Mapping[str, Any] | None = None,
        *,
        place: object = "",
    ) -> "Published":
        """Read files from memory.  `model`: the values of config.json, whose model_type says what the files may not."""
        model = {k: v for k, v in (model or {}).items() if k in MODEL_KEYS}
        source = Source(dict(files), model, str(place))
        for name, data in files.items():
            check_size(data, name, source.where(name))
        layout = layout_of(source)
        settings = read_settings(source, layout)
        if layout == "marian":
            return cls(_side(source, settings, 0), source, settings, _side(source, settings, 1))
        place = source.where(LAYOUTS[layout][0])
        return cls(rust_engine(source, layout, settings, place), source, settings)


def _side(source: Source, settings: Settings, which: int) -> SpmEngine:
    name = ("source.spm", "target.spm")[which]
    separate = bool(settings.flag("separate_vocabs", False, source.where(CONFIG)))
    table = "target_vocab.json" if separate and which else "vocab.json"
    place = source.where(table)
    vocab = check_vocab(source.json(table), table, place)
    special = {}
    for key, token in settings.specials.named.items():
        if token.content in vocab:
            special[key] = vocab[token.content]
        elif key in ("unk", "eos", "pad"):
            refuse(f"the special token {token.content!r:.60} is not in the vocabulary", place)
    read_spm(source.files[name], source.where(name))
    return SpmEngine(source.files[name], vocab, special, source.where(name))


def _again(files: dict[str, bytes], model: dict[str, Any], place: str, side: str) -> Published:
    made = Published.from_files(files, model, place=place)
    return made.target if side == "target" else made
