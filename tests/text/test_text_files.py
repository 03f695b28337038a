"""Tokenizer files: what is written loads again, here and elsewhere; what is damaged is refused with a reason."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from qkv.errors import MissingError, QkvError, TokenizerError
from qkv.text import Tokenizer

TEXTS = ["커피 한잔 어때?", "<eos> <0x41>", "School  coffee\n漢 İ", "", "é Σ"]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_saved_is_loaded(tk: Tokenizer, tmp_path: Path) -> None:
    again = Tokenizer.load(write(tmp_path, tk.files()))
    assert again.config == tk.config and again.files() == tk.files()
    assert again.fingerprint == tk.fingerprint and len(tk.fingerprint) == 64
    for x in TEXTS:
        assert again.encode(x) == tk.encode(x)
        assert again.sample(x, random.Random(1), 0.5) == tk.sample(x, random.Random(1), 0.5)


def test_a_copy_keeps_the_laws(tk: Tokenizer) -> None:
    again = copy.deepcopy(tk)  # as a worker process gets it
    assert again.fingerprint == tk.fingerprint
    assert [again.encode(x) for x in TEXTS] == [tk.encode(x) for x in TEXTS]


def test_fingerprints_tell_tokenizers_apart(tokenizers: dict[str, Tokenizer]) -> None:
    assert len({t.fingerprint for t in tokenizers.values()}) == len(tokenizers)


def test_the_library_alone_gives_the_same_ids(tk: Tokenizer, lines: list[str]) -> None:
    from tokenizers import Tokenizer as Rust

    theirs = Rust.from_str(tk.files()["tokenizer.json"].decode())
    theirs.encode_special_tokens = True
    for x in [*TEXTS, *lines[:60]]:
        ids = theirs.encode(x, add_special_tokens=False).ids
        assert ids == tk.encode(x).ids
        if not tk.config.jamo:  # there jamo stay apart
            assert theirs.decode(ids) == tk.decode(ids)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_gives_the_same_ids(tk: Tokenizer, tmp_path: Path, lines: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    write(tmp_path, tk.files())
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), split_special_tokens=True
    )
    for x in [*TEXTS, *lines[:60]]:
        assert theirs(x, add_special_tokens=False)["input_ids"] == tk.encode(x).ids


def test_a_missing_file_is_named(tokenizers: dict[str, Tokenizer], tmp_path: Path) -> None:
    for name, data in tokenizers["bpe"].files().items():
        with pytest.raises(MissingError, match="tokenizer"):
            Tokenizer.load(tmp_path)
        (tmp_path / name).write_bytes(data)
    Tokenizer.load(tmp_path)


def refused(files: dict[str, bytes], seen: str) -> None:
    with pytest.raises(TokenizerError, match=seen) as e:
        Tokenizer.from_files(files, place="some/folder")
    assert e.value.place.startswith("some/folder") and e.value.fix


def changed(tk: Tokenizer, change: Any, name: str = "tokenizer.json") -> dict[str, bytes]:
    files = tk.files()
    value = json.loads(files[name])
    change(value)
    return {**files, name: json.dumps(value).encode()}


def test_known_tricks_are_refused(tokenizers: dict[str, Tokenizer]) -> None:
    bpe, uni, words = (tokenizers[k] for k in ("bpe", "unigram", "words"))
    refused({**bpe.files(), "tokenizer.json": b""}, "not strict JSON")
    refused({**bpe.files(), "tokenizer.json": b"[" * 100_000}, "not strict JSON")
    refused({**bpe.files(), "tokenizer.json": b"\xff\xfe{}"}, "not strict JSON")
    refused({**bpe.files(), "tokenizer.json": b'{"a": NaN}'}, "not strict JSON")
    refused({**bpe.files(), "tokenizer.json": b'{"a": "\\ud800"}'}, "not strict JSON")
    refused({**bpe.files(), "qkv_tokenizer.json": b" " * 70_000}, "larger than")
    refused({**bpe.files(), "tokenizer.json": uni.files()["tokenizer.json"]}, "model needs")
    refused(
        changed(bpe, lambda d: d["model"]["merges"].append(["no", "pe"])), "unknown or repeated"
    )
    refused(changed(bpe, lambda d: d["model"]["merges"].append(["<", "eos>"])), "unknown")
    refused(changed(bpe, lambda d: d["model"]["vocab"].update({"x" * 2000: 460})), "cannot occur")
    refused(changed(bpe, lambda d: d["model"]["vocab"].update({"new": 7})), "one of 0")
    refused(changed(bpe, lambda d: d["model"]["vocab"].update({"new": 10**9})), "one of 0")
    refused(changed(bpe, lambda d: d["model"]["vocab"].update({"new": True})), "one of 0")
    refused(
        changed(bpe, lambda d: d["model"].update(continuing_subword_prefix="x" * 99)), "must be"
    )
    refused(changed(bpe, lambda d: d["added_tokens"].pop()), "added_tokens")
    refused(changed(uni, lambda d: d["model"]["vocab"].append(["<eos>x", -1.0])), "cannot occur")
    refused(changed(uni, lambda d: d["model"]["vocab"].append(["q", 1e300])), "score")
    refused(changed(uni, lambda d: d["model"]["vocab"].append([" ", -1.0])), "twice")
    refused(changed(uni, lambda d: d["model"]["vocab"].append(["", -1.0])), "cannot occur")
    refused(changed(words, lambda d: d["model"].update(vocab=[])), "not an object")
    name = "qkv_tokenizer.json"
    refused(changed(bpe, lambda d: d.update(version=2), name), "version 2")
    refused(changed(bpe, lambda d: d["text"].update(kinds="bpe"), name), "unknown setting")
    refused(changed(bpe, lambda d: d["text"].update(lowercase=True), name), "normalizer")
    refused(changed(bpe, lambda d: d["text"].update(kind=["bpe"]), name), "choices")


JUNK: list[Any] = [
    None, True, False, 0, -1, 3, 1.5, 1e308, 2**64, "", "<eos>", "<0x41>", "\ud800", "a" * 3000, [], {}, [[]], "BPE", "Unigram",
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, {"type": "Split", "pattern": {"Regex": "(a+)+$"}},
]  # fmt: skip


def mutate(value: Any, rng: random.Random) -> None:
    """One change somewhere in a JSON value: delete, replace, duplicate, swap, or rename a key."""
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        k = rng.choice(keys)
        if isinstance(node[k], (dict, list)) and node[k] and rng.random() < 0.8:
            node = node[k]
            continue
        break
    action, other = rng.randrange(5), rng.choice(keys)
    if action == 0:
        del node[k]
    elif action == 1:
        node[k] = copy.deepcopy(rng.choice(JUNK))
    elif action == 2:
        node[k], node[other] = node[other], node[k]
    elif action == 3 and isinstance(node, list):
        node.insert(k, node[other])
    elif isinstance(node, dict):
        node[rng.choice(["<eos>", "x", "type", "", "<", str(k) * 2])] = node.pop(k)


def hostile(files: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(sorted(files))
    data = files[name]
    if rng.random() < 0.7:
        value = json.loads(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            mutate(value, rng)
        return {**files, name: json.dumps(value).encode()}
    at = rng.randrange(len(data))
    cut = rng.randrange(4)
    if cut == 0:
        return {**files, name: data[:at]}
    if cut == 1:
        return {**files, name: data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]}
    if cut == 2:
        return {**files, name: data[:at] + data[at // 2 : at] + data[at:]}
    return {**files, name: data + rng.choice([b"}", b"\0", b"x", b"{}"])}


def test_mutated_files_are_refused_or_keep_every_law(tk: Tokenizer) -> None:
    rng, files = random.Random(11), tk.files()
    outcomes = {True: 0, False: 0}
    for _ in range(60):
        try:
            made = Tokenizer.from_files(hostile(files, rng), place="folder")
        except QkvError as e:
            assert isinstance(e, TokenizerError) and e.code in ("QKV-040", "QKV-063"), e
            assert e.place.startswith("folder") and e.seen and e.fix
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        for x in TEXTS:
            ids = made.encode(x).ids
            assert not {0, 1, 2} & set(ids)
            if made.kind in ("unigram", "bpe", "bytes"):
                assert made.decode(ids) == made.normal(x)
                sampled = made.sample(x, rng, 0.5)
                assert made.decode(sampled) == made.normal(x)
            assert len(made.encode(x).offsets) == len(ids)
    assert outcomes[False] > 20
