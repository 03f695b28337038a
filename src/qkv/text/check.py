"""The gate of tokenizer files: everything is checked here, before the Rust library sees a byte (it panics on some).

A file passes when it is exactly what we would write for its settings, with a vocabulary and merges that make sense.
"""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from ..config import from_dict, parse_json
from ..errors import ConfigError, MissingError, TokenizerError
from .config import MAX_VOCAB, TextConfig
from .pipeline import BYTE_KINDS, BYTES, SPECIALS, UNK, document

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "qkv_tokenizer.json"
LIMITS = {TOKENIZER_FILE: 128 << 20, SETTINGS_FILE: 64 << 10}  # bytes
MAX_PIECE = 1024  # characters
MAX_SCORE = 1e6
AGAIN = "copy or fetch the file again, or train the tokenizer anew"


def shell(kind: str) -> dict[str, Any]:
    """The model part of tokenizer.json, without what was learned."""
    if kind == "unigram":
        return {"type": "Unigram", "unk_id": UNK, "byte_fallback": True}
    if kind in ("bpe", "bytes"):
        none = dict.fromkeys(("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        flags = {"fuse_unk": False, "byte_fallback": True, "ignore_merges": False}
        return {"type": "BPE", "unk_token": SPECIALS[UNK], **none, **flags}
    if kind == "wordpiece":
        limits = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
        return {"type": "WordPiece", "unk_token": SPECIALS[UNK], **limits}
    return {"type": "WordLevel", "unk_token": SPECIALS[UNK]}


def read_files(folder: Path) -> dict[str, bytes]:
    """Raises MissingError on a missing file, TokenizerError on one that is too large or cannot be read."""
    files = {}
    for name, limit in LIMITS.items():
        path = folder / name
        if not path.is_file():
            raise MissingError(
                f"no tokenizer file {name}", place=folder, fix="give the folder of a run or model"
            )
        try:
            with path.open("rb") as f:
                files[name] = f.read(limit + 1)
        except OSError as e:
            raise TokenizerError(
                f"cannot be read: {e.strerror}", place=path, fix="check its permissions"
            ) from None
    return files


def parse_files(files: dict[str, bytes], place: object) -> tuple[TextConfig, dict[str, Any]]:
    """Settings and model of checked files.  Raises TokenizerError with file and reason."""
    where = {n: str(Path(str(place)) / n) if place else n for n in LIMITS}
    read = {n: _json(files[n] if n in files else b"", where[n], LIMITS[n]) for n in LIMITS}
    config = _settings(read[SETTINGS_FILE], where[SETTINGS_FILE])
    return config, _model(read[TOKENIZER_FILE], config, where[TOKENIZER_FILE])


def _refuse(seen: str, place: str, fix: str = AGAIN, code: str = "QKV-040") -> NoReturn:
    raise TokenizerError(seen, place=place, fix=fix, code=code)


def _json(data: bytes, place: str, limit: int) -> dict[str, Any]:
    if len(data) > limit:
        _refuse(f"larger than {limit} bytes", place)
    try:
        value = parse_json(data.decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode()  # "\ud800" is JSON, but no character
    except (ValueError, RecursionError) as e:
        _refuse(f"not strict JSON in UTF-8: {str(e)[:200]}", place)
    if not isinstance(value, dict):
        _refuse("not a JSON object", place)
    return value


def _settings(value: dict[str, Any], place: str) -> TextConfig:
    if set(value) != {"version", "text"} or type(value["version"]) is not int:
        _refuse("needs exactly the keys 'version' and 'text'", place)
    if value["version"] != 1:
        _refuse(
            f"version {value['version']}; this qkv reads version 1",
            place,
            "install a newer qkv",
            "QKV-063" if value["version"] > 1 else "QKV-040",
        )
    if not isinstance(value["text"], dict):
        _refuse("'text' is not a table", place)
    try:
        return from_dict(TextConfig, value["text"])
    except ConfigError as e:
        _refuse(e.seen, place, e.fix)


def _model(value: dict[str, Any], config: TextConfig, place: str) -> dict[str, Any]:
    given = value.get("model")
    vocab = given.get("vocab") if isinstance(given, dict) else None
    want = document(config, {"vocab": vocab if isinstance(vocab, (list, dict)) else ()})
    for key in sorted(set(value) | set(want)):
        if key not in want or key not in value or (key != "model" and value[key] != want[key]):
            _refuse(f"{key!r} is not what {SETTINGS_FILE} asks for (kind {config.kind!r})", place)
    model = value["model"]
    learned = ("vocab", "merges") if config.kind in ("bpe", "bytes") else ("vocab",)
    bare = shell(config.kind)
    if not isinstance(model, dict) or set(model) != set(bare) | set(learned):
        _refuse(f"model needs exactly the keys {sorted(set(bare) | set(learned))}", place)
    for key in bare:
        if model[key] != bare[key]:
            _refuse(f"model.{key} must be {bare[key]!r}", place)
    pieces = _vocab(model["vocab"], config, place)
    if "merges" in learned:
        _merges(model["merges"], set(pieces[len(SPECIALS) :]), config, place)
    return {**bare, **{k: model[k] for k in learned}}


def _vocab(vocab: Any, config: TextConfig, place: str) -> list[str]:
    """Pieces in order of their ids, checked."""
    pieces = _scored(vocab, place) if config.kind == "unigram" else _numbered(vocab, place)
    if len(pieces) > MAX_VOCAB:
        _refuse(f"{len(pieces)} pieces (limit {MAX_VOCAB})", place)
    head = SPECIALS + (BYTES if config.kind in BYTE_KINDS else ())
    if tuple(pieces[: len(head)]) != head:
        _refuse(f"ids 0 to {len(head) - 1} are not the specials and byte pieces", place)
    if len(set(pieces)) != len(pieces):
        _refuse("a piece occurs twice", place)
    end = len(pieces) - len(config.specials)
    if end < len(head) or tuple(pieces[end:]) != config.specials:
        _refuse(f"the last ids are not {', '.join(config.specials)}", place)
    if config.kind == "bytes" and end != len(head):
        _refuse("a byte vocabulary has nothing but bytes", place)
    for i in range(len(head), end):
        p = pieces[i]
        alone = "<" in p and config.kind in BYTE_KINDS or config.kind == "chars"
        if not 0 < len(p) <= MAX_PIECE or (alone and len(p) > 1):
            _refuse(f"piece {i} cannot occur: {p[:40]!r}", place)
    return pieces


def _scored(vocab: Any, place: str) -> list[str]:
    if not isinstance(vocab, list):
        _refuse("model.vocab is not a list", place)
    for i, entry in enumerate(vocab):
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not str:
            _refuse(f"model.vocab[{i}] is not [piece, score]", place)
        score = entry[1]
        if type(score) not in (int, float) or not abs(score) <= MAX_SCORE or math.isnan(score):
            _refuse(f"model.vocab[{i}] has the score {str(score)[:40]}", place)
    return [p for p, _ in vocab]


def _numbered(vocab: Any, place: str) -> list[str]:
    if not isinstance(vocab, dict):
        _refuse("model.vocab is not an object", place)
    pieces: list[str | None] = [None] * len(vocab)
    for p, i in vocab.items():
        if type(i) is not int or not 0 <= i < len(pieces) or pieces[i] is not None:
            _refuse(f"id {str(i)[:40]} of piece {p[:40]!r} is not one of 0 … n - 1, once", place)
        pieces[i] = p
    return [p for p in pieces if p is not None]


def _merges(merges: Any, pieces: set[str], config: TextConfig, place: str) -> None:
    if not isinstance(merges, list) or (config.kind == "bytes" and merges):
        _refuse("model.merges is not a list of what this kind may merge", place)
    seen = set()
    for i, pair in enumerate(merges):
        if not isinstance(pair, list) or len(pair) != 2 or any(type(p) is not str for p in pair):
            _refuse(f"model.merges[{i}] is not a pair of pieces", place)
        a, b = pair
        if not {a, b, a + b} <= pieces or (a, b) in seen:
            _refuse(f"model.merges[{i}] = {a[:40]!r} + {b[:40]!r} is unknown or repeated", place)
        seen.add((a, b))


def rust(config: TextConfig, model: dict[str, Any]) -> Any:
    """The library's tokenizer of folded text: no normaliser, and specials in a text are text.

    Raises TokenizerError where the library refuses or panics."""
    from tokenizers import Tokenizer

    whole = {**document(config, model), "normalizer": None}
    try:
        made = Tokenizer.from_str(json.dumps(whole, ensure_ascii=False))
    except BaseException as e:  # pyo3's PanicException is no Exception
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise TokenizerError(f"the tokenizers library refuses it: {str(e)[:200]}", fix=AGAIN) from e
    made.encode_special_tokens = True
    return made
