"""The gate of published tokenizer files: sizes, JSON, vocabularies and merges are checked before any library reads them.

What the parts of a tokenizer.json are called and take is left to the `tokenizers` library, whose refusals and panics
become TokenizerErrors here.  Nothing in these files is executed or imported: auto_map and chat templates are carried, not read.
"""

import base64
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..config import parse_json
from ..errors import MissingError, TokenizerError
from .specials import MAX_TOKEN, MAX_TOKENS, refuse

T = TypeVar("T")
MB = 1 << 20
LIMITS = {  # bytes; every file that belongs to a published tokenizer
    "tokenizer.json": 128 * MB, "tokenizer_config.json": 16 * MB, "special_tokens_map.json": 4 * MB, "added_tokens.json": 4 * MB,
    "vocab.txt": 64 * MB, "vocab.json": 64 * MB, "merges.txt": 64 * MB, "target_vocab.json": 64 * MB,
    "tokenizer.model": 64 * MB,
    "spiece.model": 64 * MB, "sentencepiece.bpe.model": 64 * MB, "source.spm": 64 * MB, "target.spm": 64 * MB,
    "chat_template.jinja": 4 * MB,
}  # fmt: skip
MAX_ID = 1 << 22
MAX_PIECE = 1 << 16  # characters of a piece: code vocabularies have runs of spaces


def read_folder(folder: Path, names: Iterable[str] = tuple(LIMITS)) -> dict[str, bytes]:
    """The files of a tokenizer that are there.  Raises MissingError on no folder, TokenizerError on what cannot be read."""
    if not folder.is_dir():
        raise MissingError(f"no folder {folder}", fix="give the folder of a model", code="QKV-021")
    files = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        limit = LIMITS.get(name, MB)
        try:
            with path.open("rb") as f:
                files[name] = f.read(limit + 1)
        except OSError as e:
            refuse(f"cannot be read: {e.strerror}", str(path), "check its permissions")
        check_size(files[name], name, str(path))
    return files


def check_size(data: bytes, name: str, place: str) -> None:
    if len(data) > LIMITS.get(name, MB):
        refuse(f"larger than {LIMITS.get(name, MB)} bytes", place)


def read_text(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        refuse(f"not UTF-8: byte {e.start}", place)


def read_object(data: bytes, place: str) -> dict[str, Any]:
    """A JSON object, strictly: no duplicate keys, no NaN, no lone surrogates."""
    try:
        value = parse_json(read_text(data, place).removeprefix("\ufeff"))
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as e:
        refuse(f"not strict JSON in UTF-8: {str(e)[:200]}", place)
    if not isinstance(value, dict):
        refuse("not a JSON object", place)
    return value


def library(make: Callable[[], T], place: str) -> T:
    """What `make` makes with the library; its errors and panics as a TokenizerError."""
    try:
        return make()
    except BaseException as e:  # pyo3's PanicException is no Exception
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        if isinstance(e, TokenizerError):
            raise
        raise TokenizerError(
            f"the tokenizers library refuses it: {str(e)[:300]}",
            place=place,
            fix="fetch the file again, or install a newer tokenizers",
        ) from e


def check_document(value: dict[str, Any], place: str) -> None:
    """The parts of a tokenizer.json on which the library panics, or goes on with other ids than the file says."""
    model = value.get("model")
    if not isinstance(model, dict):
        refuse("has no model: not a tokenizer.json", place)
    vocab = model.get("vocab")
    if isinstance(vocab, list):
        pieces = _scored(vocab, model, place)
    else:
        pieces = set(check_vocab(vocab, "model.vocab", place))
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        check_merges(model["merges"], pieces, prefix, place)
    unk = model.get("unk_token")
    if model.get("type") in ("WordPiece", "WordLevel") and unk not in pieces:
        refuse(f"the unknown token {unk!r:.60} is not in the vocabulary", place)
    _added(value.get("added_tokens", []), place)
    _charsmap(value.get("normalizer"), place)


def _charsmap(step: Any, place: str) -> None:
    """The library panics on a compiled normaliser that is not base64."""
    steps = step.get("normalizers") if isinstance(step, dict) else step
    for inner in steps if isinstance(steps, list) else ():
        _charsmap(inner, place)
    if not isinstance(step, dict) or step.get("type") != "Precompiled":
        return
    try:
        base64.b64decode(step["precompiled_charsmap"], validate=True)
    except (KeyError, TypeError, ValueError):
        refuse("normalizer: precompiled_charsmap is not base64", place)


def _scored(vocab: list[Any], model: dict[str, Any], place: str) -> set[str]:
    pieces = set()
    for i, entry in enumerate(vocab):
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not str:
            refuse(f"model.vocab[{i}] is not [piece, score]", place)
        piece, score = entry
        if type(score) not in (int, float) or not math.isfinite(score):
            refuse(f"model.vocab[{i}] has the score {score!r:.40}", place)
        if piece in pieces:
            refuse(f"model.vocab[{i}]: {piece[:40]!r} occurs twice", place)
        pieces.add(piece)
    unk = model.get("unk_id")
    if not pieces or (unk is not None and (type(unk) is not int or not 0 <= unk < len(vocab))):
        refuse(f"unk_id {unk!r:.40} is not one of {len(vocab)} pieces", place)
    return pieces


def check_vocab(vocab: Any, name: str, place: str) -> dict[str, int]:
    """A vocabulary of pieces and ids: ids are whole, not negative, and occur once."""
    if not isinstance(vocab, dict):
        refuse(f"{name} is not an object of pieces and ids", place)
    owner: dict[int, str] = {}
    for piece, at in vocab.items():
        if type(at) is not int or not 0 <= at < MAX_ID:
            refuse(f"{name} gives {piece[:40]!r} the id {at!r:.40}", place)
        if at in owner:
            refuse(f"{name} gives the id {at} to {owner[at][:40]!r} and {piece[:40]!r}", place)
        if len(piece) > MAX_PIECE:
            refuse(f"{name}: piece {at} has {len(piece)} characters", place)
        owner[at] = piece
    return vocab


def check_merges(merges: Any, pieces: Iterable[str], prefix: str, place: str) -> None:
    """Every merge is a pair of pieces that make a piece: the library cuts `prefix` off the second without looking."""
    if not isinstance(merges, list) or not isinstance(prefix, str):
        refuse("model.merges is not a list of pairs", place)
    known = set(pieces)
    for i, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            refuse(f"merge {i + 1} is {merge!r:.60}, not a pair of pieces", place)
        a, b = pair
        if not isinstance(a, str) or not isinstance(b, str) or not b.startswith(prefix):
            refuse(f"merge {i + 1} is {merge!r:.60}, not a pair of pieces", place)
        if not {a, b, a + b[len(prefix) :]} <= known:
            refuse(
                f"merge {i + 1}: {merge!r:.60} uses or makes a piece not in the vocabulary", place
            )


def _added(tokens: Any, place: str) -> None:
    if not isinstance(tokens, list) or len(tokens) > MAX_TOKENS:
        refuse("added_tokens is not a list of tokens", place)
    ids: set[int] = set()
    contents: set[str] = set()
    for i, entry in enumerate(tokens):
        if not isinstance(entry, dict):
            refuse(f"added_tokens[{i}] is not an object", place)
        at, content = entry.get("id"), entry.get("content")
        if type(at) is not int or not 0 <= at < MAX_ID or at in ids:
            refuse(
                f"added_tokens[{i}] has the id {at!r:.40}, which is taken or out of range", place
            )
        if type(content) is not str or not 0 < len(content) <= MAX_TOKEN or content in contents:
            refuse(f"added_tokens[{i}] is {content!r:.60}: empty, too long or repeated", place)
        ids.add(at)
        contents.add(content)


def read_vocab_txt(data: bytes, place: str) -> dict[str, int]:
    """BERT's vocab.txt: a piece a line, ids by line.  White space at the end of a line does not count."""
    lines = read_text(data, place).split("\n")
    if lines[-1] == "":
        lines.pop()
    vocab: dict[str, int] = {}
    for i, line in enumerate(lines):
        piece = line.rstrip(SPACES)
        if piece in vocab:
            refuse(f"lines {vocab[piece] + 1} and {i + 1} are both {piece[:40]!r}", place)
        vocab[piece] = i
    if not vocab or len(vocab) > MAX_ID:
        refuse(f"{len(vocab)} pieces", place)
    return vocab


def read_merges_txt(data: bytes, place: str) -> list[tuple[str, str]]:
    """GPT-2's merges.txt: a pair a line after an optional "#version" line."""
    lines = read_text(data, place).split("\n")
    if lines[-1] == "":
        lines.pop()
    merges = []
    for i, line in enumerate(lines):
        line = line.removesuffix("\r")
        if line.startswith("#version"):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            refuse(f"line {i + 1} is {line[:60]!r}, not two pieces with a space between", place)
        merges.append((pair[0], pair[1]))
    return merges


# Unicode's White_Space, at which the library cuts the end of a line; str.rstrip would take U+001C to U+001F too
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
