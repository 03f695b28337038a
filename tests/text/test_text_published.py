"""Published tokenizers: the ids of transformers, special text as text, offsets, frames, and files that lie."""

import json
import pickle
import random
import struct
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import category

import published_layouts as made
import pytest
from published_layouts import dumped, hostile_lines, layout, write
from test_text_files import hostile

from qkv.errors import CATALOGUE, ConfigError, DataError, MissingError, QkvError, TokenizerError
from qkv.text import Published, Tokenizer, hf_files, load_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = [*made.LAYOUTS]
EVERY = [*NAMES, *(f"{n}-saved" for n in made.SAVED)]
SLOTS = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("published")
    for name in NAMES:
        write(base / name, layout(name))
    for name in made.SAVED:
        write(base / f"{name}-saved", made.saved(layout(name), base / "saving" / name))
    return {name: base / name for name in EVERY}


@pytest.fixture(params=EVERY)
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@cache
def ours(folder: Path) -> Published:
    return Published.load(folder)


@cache
def theirs(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def reference_ids(folder: Path, lines: list[str], specials: bool = False) -> list[list[int]]:
    out = theirs(folder)(lines, add_special_tokens=False, split_special_tokens=not specials)
    ids: list[list[int]] = out["input_ids"]
    return ids


# ---- parity


def compare(folder: Path, lines: list[str]) -> None:
    got = [e.ids for e in ours(folder).encode_batch(lines)]
    for line, a, b in zip(lines, got, reference_ids(folder, lines), strict=True):
        assert a == b, repr(line[:200])


def test_the_ids_of_transformers(folder: Path) -> None:
    compare(folder, hostile_lines(1000 if folder.name.endswith("saved") else 3000))


@pytest.mark.slow
def test_the_ids_of_transformers_on_many_lines(folder: Path) -> None:
    for seed in range(20):
        compare(folder, hostile_lines(5000, seed=100 + seed))


def test_decoded_text_is_that_of_transformers(folder: Path) -> None:
    tok, ref = ours(folder), theirs(folder)
    for line in hostile_lines(600, seed=4):
        ids = tok.frame(tok.encode(line).ids)[0]
        assert tok.decode(ids) == ref.decode(ids, skip_special_tokens=True), repr(line)


def test_frames_are_those_of_transformers(folder: Path) -> None:
    tok, ref = ours(folder), theirs(folder)
    for a, b in [("한글 text", "and 둘"), ("x", "y z"), ("커피", "a" * 50)]:
        one, two = tok.encode(a).ids, tok.encode(b).ids
        single = ref(a, return_token_type_ids=True)
        pair = ref(a, b, return_token_type_ids=True)
        assert tok.frame(one)[0] == single["input_ids"]
        assert tok.frame(one, two)[0] == pair["input_ids"]
        if (
            tok.layout != "marian"
        ):  # transformers guesses its segments by length; the model has none
            assert tok.frame(one)[1] == single["token_type_ids"]
            assert tok.frame(one, two)[1] == pair["token_type_ids"]


def test_frames_look_as_the_papers_draw_them(folders: dict[str, Path]) -> None:
    want = {
        "bert": "[CLS] a [SEP] b [SEP]",
        "roberta": "<s> a </s> </s> b </s>",
        "t5": "▁a </s> ▁b </s>",
        "gpt2": "a b",
        "gpt2-bos": "<|endoftext|> ▁a <|endoftext|> ▁b",
        "llama-json": "<s> ▁a <s> ▁ b",
        "mbart": "▁a ▁b </s> ko_KR",
    }
    for name, text in want.items():
        tok = ours(folders[name])
        ids, segments = tok.frame(tok.encode("a").ids, tok.encode("b").ids)
        assert " ".join(tok.tokens(ids)) == text and len(segments) == len(ids)
    tok = ours(folders["bert"])
    assert tok.frame([7, 8], [9])[1] == [0, 0, 0, 0, 1, 1]


def test_special_ids_and_sizes_are_those_of_transformers(folder: Path) -> None:
    tok, ref = ours(folder), theirs(folder)
    for name in SLOTS:
        assert getattr(tok, f"{name}_id") == getattr(ref, f"{name}_token_id"), name
    assert tok.vocab_size == len(ref) == 1 + max(ref.get_vocab().values())


def test_offsets_are_those_of_transformers(folder: Path) -> None:
    tok, ref = ours(folder), theirs(folder)
    if not ref.is_fast:
        pytest.skip("the reference has no offsets; see test_offsets_spell_the_pieces")
    for line in hostile_lines(400, seed=5):
        out = ref(
            line, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        for (a, b), (start, end) in zip(
            tok.encode(line).offsets, out["offset_mapping"], strict=True
        ):
            lost = line[end:b]  # marks that a normaliser took in belong to no piece there
            assert a == start and b >= end, repr(line)
            assert all(category(c)[0] == "M" or "\u1160" <= c <= "\u11ff" for c in lost)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> layout, files over it (None: removed)
    "type-only-bert": ("bert", {"tokenizer_config.json": None, "config.json": {"model_type": "distilbert"}}),
    "type-only-bart": ("bart", {"tokenizer_config.json": None, "config.json": {"model_type": "bart"}}),
    "type-only-longformer": ("roberta", {"tokenizer_config.json": None, "config.json": {"model_type": "longformer"}}),
    "type-only-bigbird": ("bigbird", {"tokenizer_config.json": None, "config.json": {"model_type": "big_bird"}}),
    "type-only-t5": ("t5", {"tokenizer_config.json": None, "config.json": {"model_type": "t5"}}),
    "added-words": ("bert", {"added_tokens.json": {"coffeehouse": 700, "[X]": 701}}),
    "numbered": ("bert", {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "added_tokens_decoder": {
        "700": {"content": "Foo bar", "normalized": True, "single_word": True, "special": False}, "701": {"content": "[X]", "special": True}}}}),
    "small": ("bert", {"vocab.txt": b"[UNK]\na\nb\n##c\nthe\n"}),
    "marked": ("bert", {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "additional_special_tokens": ["[A]", "[B]"],
        "mask_token": {"content": "[MASK]", "lstrip": True, "__type": "AddedToken"}}}),
    "padded-gpt2": ("gpt2", {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "pad_token": "<pad>", "add_eos_token": True}}),
    "few-sentinels": ("t5", {"tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "extra_ids": 20}}),
    "qwen2": ("qwen-json", {"config.json": {"model_type": "qwen2"}, "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer",
        "pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_files_beside_the_vocabulary_are_obeyed(name: str, tmp_path: Path) -> None:
    base, over = VARIANTS[name]
    files = dict(layout(base))
    for key, value in over.items():
        files[key] = value if isinstance(value, bytes) else dumped(value)
        if value is None:
            del files[key]
    write(tmp_path, files)
    compare(tmp_path, [*hostile_lines(150), "a coffeehouse, Foo bar; FOO BAR foo bar"])
    tok, ref = ours(tmp_path), theirs(tmp_path)
    assert tok.vocab_size == len(ref)
    assert tok.frame(tok.encode("a b").ids)[0] == ref("a b")["input_ids"]
    assert all(getattr(tok, f"{n}_id") == getattr(ref, f"{n}_token_id") for n in SLOTS)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_windows_line_ends_change_nothing(name: str, tmp_path: Path) -> None:
    files = {
        n: d.replace(b"\n", b"\r\n") if n.endswith(".txt") else d for n, d in layout(name).items()
    }
    compare(write(tmp_path, files), hostile_lines(150))


def test_mbart_has_no_normaliser(folders: dict[str, Path]) -> None:
    tok = ours(folders["mbart"])  # as in the reference, though the model file has one
    assert (
        tok.normal("ﬁ ＡＢＣ") == "ﬁ ＡＢＣ" and ours(folders["t5"]).normal("ﬁ ＡＢＣ") == "fi ABC"
    )


def test_bigbird_has_no_normaliser(folders: dict[str, Path]) -> None:
    tok = ours(folders["bigbird"])  # but that several spaces are one, as in the reference
    assert tok.normal("ﬁ  ＡＢＣ") == "ﬁ▁ＡＢＣ"
    lines = ["a\tb\nc  d", " a", "a\u3000b"]
    assert [e.ids for e in tok.encode_batch(lines)] == reference_ids(folders["bigbird"], lines)


# ---- special text


def special_ids(tok: Published) -> set[int]:
    return {getattr(tok, f"{n}_id") for n in SLOTS} - {None, tok.unk_id}


def test_special_text_is_text(folder: Path) -> None:
    """Where the reference keeps a text free of special tokens, ours are its ids; where it does not, ours are free of them."""
    tok, lines = ours(folder), hostile_lines(600, special=True)
    if tok.layout == "t5":
        lines += [f"<extra_id_{i}>" for i in range(100)]
    injected = set(theirs(folder).all_special_ids)
    forbidden = special_ids(tok) | {tok.id_of(f"<extra_id_{i}>") for i in range(100)}
    forbidden |= {tok.id_of(code) for code in ("en_XX", "ko_KR") if tok.kind == "unigram"}
    for line, made_ids, ref in zip(
        lines, tok.encode_batch(lines), reference_ids(folder, lines), strict=True
    ):
        assert not forbidden & set(made_ids.ids), repr(line)
        if not injected & set(ref):
            assert made_ids.ids == ref, repr(line)


def test_the_text_of_a_special_token_decodes_as_text(folders: dict[str, Path]) -> None:
    for name, text in {
        "gpt2": "<|endoftext|>",
        "roberta": "a<mask>b</s>",
        "llama-json": "<s> a",
    }.items():
        tok = ours(folders[name])
        assert tok.decode(tok.encode(text).ids) == text


def test_special_text_on_demand(folder: Path) -> None:
    tok, lines = ours(folder), hostile_lines(400, special=True)
    got = [e.ids for e in tok.encode_batch(lines, specials=True)]
    assert got == reference_ids(folder, lines, specials=True)


def test_sentinels_and_masks_on_demand(folders: dict[str, Path]) -> None:
    t5 = ours(folders["t5"])
    first, last = t5.id_of("<extra_id_0>"), t5.id_of("<extra_id_99>")
    assert (first, last) == (t5.vocab_size - 1, t5.vocab_size - 100)
    assert first in t5.encode("a <extra_id_0> b", specials=True).ids
    for name, text in {"bert": "a [MASK] b", "roberta": "a <mask> b"}.items():
        tok = ours(folders[name])
        assert tok.mask_id in tok.encode(text, specials=True).ids
        assert tok.mask_id not in tok.encode(text).ids
        spans = tok.encode(text, specials=True).offsets
        at = tok.encode(text, specials=True).ids.index(tok.mask_id)
        assert text[slice(*spans[at])].strip() in ("[MASK]", "<mask>")


def test_ordinary_added_words_are_matched(folders: dict[str, Path]) -> None:
    tok = ours(folders["llama-json"])
    assert tok.id_of("coffeehouse") in tok.encode("a coffeehouse").ids
    assert "커피숍" in tok.tokens(tok.encode("큰 커피숍에").ids)


# ---- offsets and pieces


def test_offsets_spell_the_pieces(folder: Path) -> None:
    """Each piece stands for the characters that normalise to it; offsets never go back or leave the text."""
    tok = ours(folder)
    for line in ["커피 한잔 어때?", "Café  au 가나 lait", "a👍🏽b 👩\u200d👧 c", "e\u0301" * 5]:
        made_enc = tok.encode(line)
        for piece, (a, b) in zip(tok.tokens(made_enc.ids), made_enc.offsets, strict=True):
            assert 0 <= a <= b <= len(line)
            bare = piece.replace("▁", "").removeprefix("##")
            if not bare or piece in ("<unk>", "[UNK]") or bare.startswith("<0x"):
                continue
            said = tok.normal(line[a:b]).casefold()
            assert bare.casefold() in said or said.strip("▁ ") in bare.casefold(), (
                piece,
                line[a:b],
            )
        starts = [a for a, _ in made_enc.offsets]
        assert starts == sorted(starts)


def test_a_composed_letter_stands_for_all_its_characters(folders: dict[str, Path]) -> None:
    jamo = "\u1100\u1161"  # 가 as two characters
    for name in ("t5", "qwen-json", "bert"):
        offsets = ours(folders[name]).encode(f"{jamo} e\u0301").offsets
        assert offsets[0][0] == 0 and offsets[-1][1] == 5
        assert {i for a, b in offsets for i in range(a, b)} >= {0, 1, 3, 4}


def test_bytes_of_a_character_share_its_span(folders: dict[str, Path]) -> None:
    tok = ours(folders["gpt2"])
    made_enc = tok.encode("a𝔘b")
    assert {
        s
        for t, s in zip(tok.tokens(made_enc.ids), made_enc.offsets, strict=True)
        if t.startswith("<0x")
    } == {(1, 2)}


def test_tokens_are_readable(folders: dict[str, Path]) -> None:
    tok = ours(folders["gpt2"])
    pieces = tok.tokens(range(tok.vocab_size))
    assert "▁the" in pieces and any("가" <= c <= "힣" for piece in pieces for c in piece)
    assert tok.tokens(tok.encode("뷁").ids) == ["<0xEB>", "<0xB7>", "<0x81>"]
    assert tok.tokens([tok.eos_id or 0]) == ["<|endoftext|>"]


def test_an_unknown_id_is_refused(folder: Path) -> None:
    tok = ours(folder)
    for bad in (-1, tok.vocab_size, 10**12):
        with pytest.raises(TokenizerError, match="not in a vocabulary") as e:
            tok.decode([0, bad])
        assert e.value.code == "QKV-041" and e.value.place == "position 1"


def test_a_lone_surrogate_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="surrogate"):
        ours(folder).encode("a\ud800")


# ---- Marian's two sides


def test_marian_sides(folders: dict[str, Path]) -> None:
    tok, ref = ours(folders["marian"]), theirs(folders["marian"])
    lines = hostile_lines(300, seed=6)
    labels = ref(text_target=lines, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    assert [e.ids for e in tok.target.encode_batch(lines)] == labels
    assert any(
        a.ids != b.ids
        for a, b in zip(tok.encode_batch(lines), tok.target.encode_batch(lines), strict=True)
    )
    assert (
        tok.target.target is tok.target
        or tok.target.target.encode("a").ids == tok.target.encode("a").ids
    )
    assert tok.frame([5, 6])[0] == [5, 6, tok.eos_id]
    code = tok.encode(">>ko<< hello")
    assert code.ids[0] == tok.id_of(">>ko<<") and code.offsets[0] == (0, 6)
    again = pickle.loads(pickle.dumps(tok.target))
    assert again.encode("커피").ids == tok.target.encode("커피").ids


def test_marian_with_two_vocabularies(tmp_path: Path) -> None:
    files = dict(layout("marian"))
    vocab = json.loads(files["vocab.json"])
    files["target_vocab.json"] = dumped({p: len(vocab) - 1 - i for p, i in vocab.items()})
    files["tokenizer_config.json"] = dumped(
        {"tokenizer_class": "MarianTokenizer", "separate_vocabs": True}
    )
    write(tmp_path, files)
    tok, ref, lines = ours(tmp_path), theirs(tmp_path), hostile_lines(100)
    labels = ref(text_target=lines, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    assert [e.ids for e in tok.target.encode_batch(lines)] == labels
    assert [e.ids for e in tok.encode_batch(lines)] == reference_ids(tmp_path, lines)


# ---- files


def test_files_come_back_unchanged(folder: Path, tmp_path: Path) -> None:
    tok = ours(folder)
    for name, data in tok.files().items():
        assert data == (folder / name).read_bytes()
    again = Published.load(write(tmp_path, hf_files(tok)))
    assert again.fingerprint == tok.fingerprint and len(tok.fingerprint) == 64
    compare(tmp_path, hostile_lines(100, seed=8))


def test_a_copy_is_the_same(folder: Path) -> None:
    tok = ours(folder)
    again = pickle.loads(pickle.dumps(tok))
    lines = hostile_lines(80, special=True)
    assert [e.ids for e in again.encode_batch(lines)] == [e.ids for e in tok.encode_batch(lines)]
    assert again.sample("커피 a", random.Random(0), 0.5) == tok.encode("커피 a").ids


def test_loading_chooses_by_what_lies_there(
    tokenizers: dict[str, Tokenizer], folders: dict[str, Path], tmp_path: Path
) -> None:
    assert isinstance(load_tokenizer(write(tmp_path, tokenizers["bpe"].files())), Tokenizer)
    assert {n: ours(f).layout for n, f in folders.items() if n in ("bert", "gpt2", "t5", "mbart", "marian", "t5-saved")} == {
        "bert": "wordpiece", "gpt2": "merges", "t5": "t5", "mbart": "mbart", "marian": "marian", "t5-saved": "json",
    }  # fmt: skip
    assert isinstance(load_tokenizer(folders["bert"]), Published)
    with pytest.raises(MissingError):
        load_tokenizer(tmp_path / "nowhere")


def test_our_own_load_as_auto_tokenizers(tk: Tokenizer, tmp_path: Path, lines: list[str]) -> None:
    write(tmp_path, hf_files(tk, max_length=77))
    ref = theirs(tmp_path)
    assert (ref.pad_token_id, ref.bos_token_id, ref.eos_token_id, ref.unk_token_id) == (0, 1, 2, 3)
    assert ref.mask_token_id == tk.mask_id
    assert ref.model_max_length == 77 and set(ref("a")) == {"input_ids", "attention_mask"}
    for line in [*lines[:40], "<eos> a <pad>", "한글", ""]:
        assert ref(line, add_special_tokens=False)["input_ids"] == tk.encode(line).ids
    with pytest.raises(ConfigError, match="max_length"):
        hf_files(tk, max_length=0)


@pytest.mark.parametrize(
    "family", "gpt2 llama qwen3 mistral bert roberta distilbert t5 bart mbart marian".split()
)
def test_our_own_load_beside_the_config_of_a_family(
    family: str, tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    # not qwen2: for that model_type transformers 5 puts its own class in place of the one a file names
    tok = tokenizers["bpe"]
    write(tmp_path, {**hf_files(tok), "config.json": dumped({"model_type": family})})
    for line in ["커피 <eos> coffee", " a  b", ""]:
        assert reference_ids(tmp_path, [line])[0] == tok.encode(line).ids
    assert theirs(tmp_path)("커피")["input_ids"] == tok.encode("커피").ids


# ---- bad input


def refused(
    files: dict[str, bytes], seen: str, name: str, kind: type[QkvError] = TokenizerError
) -> None:
    with pytest.raises(kind, match=seen) as e:
        Published.from_files(files, place="some/folder")
    assert (
        e.value.place == f"some/folder/{name}".rstrip("/")
        and e.value.fix
        and e.value.code in CATALOGUE
    )


def over(name: str, file: str, data: Any) -> dict[str, bytes]:
    return {**layout(name), file: data if isinstance(data, bytes) else dumped(data)}


def edited(name: str, change: Any) -> dict[str, bytes]:
    value = json.loads(layout(name)["tokenizer.json"])
    change(value)
    return over(name, "tokenizer.json", value)


def test_missing_files_are_named() -> None:
    refused({}, "no tokenizer files", "", MissingError)
    refused({"tokenizer.model": b"x"}, "no tokenizer.json beside", "", MissingError)
    for name, lacking in {
        "gpt2": "merges.txt",
        "roberta": "vocab.json",
        "marian": "target.spm",
    }.items():
        files = {k: v for k, v in layout(name).items() if k != lacking}
        refused(files, f"no tokenizer file {lacking}", "", MissingError)


def test_damaged_plain_files_are_refused() -> None:
    refused(
        over("bert", "vocab.txt", b"[UNK]\na\nb\na\n"), "lines 2 and 4 are both 'a'", "vocab.txt"
    )
    refused(over("bert", "vocab.txt", b"a\nb\n"), r"\[UNK\]' is not in the vocabulary", "vocab.txt")
    refused(over("bert", "vocab.txt", b"\xff\xfe"), "not UTF-8: byte 0", "vocab.txt")
    refused(over("bert", "vocab.txt", b"x" * (65 << 20)), "larger than", "vocab.txt")
    refused(over("gpt2", "merges.txt", b"#version: 0.2\na b\na\n"), "line 3 is 'a'", "merges.txt")
    refused(over("gpt2", "merges.txt", b"a b c\n"), "line 1", "merges.txt")
    refused(over("gpt2", "merges.txt", b"zz yy\n"), "not in the vocabulary", "merges.txt")
    refused(over("gpt2", "vocab.json", b'{"a": 0'), "not strict JSON", "vocab.json")
    refused(over("gpt2", "vocab.json", b'{"a": 0, "a": 1}'), "duplicate", "vocab.json")
    refused(over("gpt2", "vocab.json", {"a": 0, "b": 0}), "the id 0 to 'a' and 'b'", "vocab.json")
    refused(over("gpt2", "vocab.json", {"a": 10**9}), "id 1000000000", "vocab.json")
    refused(over("gpt2", "vocab.json", {"a": "0"}), "the id '0'", "vocab.json")
    refused(over("gpt2", "vocab.json", b"[1]"), "not a JSON object", "vocab.json")


def test_damaged_settings_are_refused() -> None:
    name = "tokenizer_config.json"
    refused(over("bert", name, b"{"), "not strict JSON", name)
    refused(over("bert", name, {"do_lower_case": "yes"}), "do_lower_case is 'yes'", name)
    refused(over("bert", name, {"cls_token": 5}), "cls_token is 5", name)
    refused(over("bert", name, {"cls_token": {"content": "x", "lstrip": 1}}), "lstrip is 1", name)
    refused(over("bert", name, {"additional_special_tokens": "x"}), "not a list", name)
    refused(over("bert", name, {"added_tokens_decoder": {"-1": "x"}}), "the id '-1'", name)
    refused(
        over("bert", name, {"tokenizer_class": "BertJapaneseTokenizer"}),
        "BertJapaneseTokenizer",
        name,
    )
    refused(
        over("gpt2", name, {"tokenizer_class": "Qwen2Tokenizer"}), "do not say how it cuts", name
    )
    refused(over("bert", "added_tokens.json", {"x": 5}), "the id 5", "vocab.txt")
    refused(
        over("bert", "special_tokens_map.json", {"mask_token": []}),
        "mask_token",
        "special_tokens_map.json",
    )
    refused(over("mbart", name, {"src_lang": "xx_XX"}), "src_lang 'xx_XX'", name)
    refused(over("t5", name, {"extra_ids": 10**9}), "extra_ids", "spiece.model")


def test_damaged_sentencepiece_models_are_refused() -> None:
    rng = random.Random(2)
    whole = layout("t5")["spiece.model"]
    for name, file in (
        ("t5", "spiece.model"),
        ("mbart", "sentencepiece.bpe.model"),
        ("marian", "target.spm"),
    ):
        for junk in (
            b"",
            b"\0",
            rng.randbytes(300),
            b"\x0a\xff\xff\xff\xff\x0f",
            whole[:1000],
            b"\x80" * 50,
        ):
            refused(over(name, file, junk), "sentencepiece model", file)
    piece = b"\x0a" + bytes([8]) + b"\x0a\x01a\x15" + struct.pack("<f", float("nan"))
    refused(over("t5", "spiece.model", piece), "score nan", "spiece.model")
    refused(
        over("t5", "spiece.model", made.spm(model_type="bpe")),
        "not a unigram model",
        "spiece.model",
    )
    vocab = json.loads(layout("marian")["vocab.json"])
    del vocab["<unk>"]
    refused(over("marian", "vocab.json", vocab), "'<unk>' is not in the vocabulary", "vocab.json")


def test_tricks_in_tokenizer_json_are_refused() -> None:
    name, file = "qwen-json", "tokenizer.json"
    for data, seen in [
        (b"", "not strict JSON"), (b'{"model":null}', "has no model"), (b"[" * 100_000, "not strict JSON"), (b'{"a": NaN}', "not strict JSON"),
        (layout(name)[file][:-100], "not strict JSON"), (b" " * (129 << 20), "larger than"),
    ]:  # fmt: skip
        refused(over(name, file, data), seen, file)
    changes: list[tuple[Any, str]] = [
        (lambda d: d["model"].update(type="Magic"), "library refuses"),
        (lambda d: d.update(pre_tokenizer={"type": "Python", "code": "1"}), "library refuses"),
        (lambda d: d["normalizer"].update(type="Exec"), "library refuses"),
        (lambda d: d["model"]["merges"].append(["no", "pe"]), "not in the vocabulary"),
        (lambda d: d["model"]["merges"].append("a b c"), "not a pair"),
        (lambda d: d["model"].update(continuing_subword_prefix="x" * 99), "not a pair"),
        (lambda d: d["model"]["vocab"].update(new=7), "the id 7"),
        (lambda d: d["model"]["vocab"].update(new=1 << 40), "the id"),
        (lambda d: d["model"]["vocab"].update(new=True), "the id True"),
        (lambda d: d["added_tokens"].append(dict(d["added_tokens"][0])), "taken"),
        (lambda d: d["added_tokens"][-1].update(id=5000), "would get"),
        (lambda d: d["added_tokens"][0].update(content=""), "empty"),
        (lambda d: d.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}), "base64"),
        (lambda d: d.update(post_processor={"type": "Magic"}), "library refuses"),
    ]  # fmt: skip
    for change, seen in changes:
        refused(edited(name, change), seen, file)
    frame = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
        "pair": [],
        "special_tokens": {},
    }
    refused(edited(name, lambda d: d.update(post_processor=frame)), "once", file)


def test_nothing_in_a_folder_is_imported(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    config = {
        "tokenizer_class": "BertTokenizer",
        "auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]},
        "chat_template": "{{ 1/0 }}",
    }
    write(tmp_path, over("bert", "tokenizer_config.json", config))
    assert Published.load(tmp_path).encode("a").ids


def spoiled(files: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(sorted(files))
    if name.endswith(".json"):
        return hostile({name: files[name]}, rng) | {k: v for k, v in files.items() if k != name}
    data, at = files[name], rng.randrange(len(files[name]))
    cut = [
        data[:at],
        data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
        data + rng.randbytes(3),
        rng.randbytes(50),
    ]
    return {**files, name: rng.choice(cut)}


@pytest.mark.parametrize("name", NAMES)
def test_mutated_files_are_refused_or_keep_the_promise(name: str) -> None:
    rng, outcomes = random.Random(13), {True: 0, False: 0}
    for _ in range(25):
        files = spoiled(layout(name), rng)
        try:
            tok = Published.from_files(files, place="folder")
        except QkvError as e:
            assert isinstance(e, (TokenizerError, MissingError)) and e.fix and e.seen, e
            assert str(e.place).startswith("folder"), e
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        for text in ["커피 </s> [SEP] <|endoftext|>", "", "a\0👍🏽"]:
            made_enc = tok.encode(text)
            assert not special_ids(tok) & set(made_enc.ids)
            assert all(0 <= i < tok.vocab_size for i in made_enc.ids)
            assert len(made_enc.offsets) == len(made_enc.ids)
            tok.decode(tok.frame(made_enc.ids)[0])
    assert outcomes[False] >= 3


def two_vocabularies(folder: Path) -> dict[str, int]:
    files = dict(layout("marian"))
    vocab: dict[str, int] = json.loads(files["vocab.json"])
    files["target_vocab.json"] = dumped({p: len(vocab) - 1 - i for p, i in vocab.items()})
    files["tokenizer_config.json"] = dumped(
        {"tokenizer_class": "MarianTokenizer", "separate_vocabs": True}
    )
    write(folder, files)
    return vocab


def test_each_side_shows_its_own_pieces(tmp_path: Path) -> None:
    vocab = two_vocabularies(tmp_path)
    tok = ours(tmp_path)
    names = {i: p for p, i in vocab.items()}
    ids = tok.encode("hello coffee").ids
    assert tok.tokens(ids) == [names[i] for i in ids]
    labels = tok.target.encode("커피").ids
    assert tok.target.tokens(labels) == [names[len(vocab) - 1 - i] for i in labels]
    assert tok.decode(labels) == tok.target.decode(labels)  # answers are read by either


def test_a_model_of_two_vocabularies_uses_each_where_it_belongs(tmp_path: Path) -> None:
    import torch

    from qkv.model import Model
    from qkv.models import build, configure

    vocab = two_vocabularies(tmp_path)
    tok, n = ours(tmp_path), len(vocab)
    torch.manual_seed(0)
    config = configure({
        "family": "marian", "d_model": 16, "n_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "d_ff": 16,
        "vocab_size": n, "target_vocab_size": n + 40, "max_positions": 64,
    } | {k: getattr(tok, k) for k in ("pad_id", "eos_id")})  # fmt: skip
    model = Model(build(config), tok, config)
    with torch.no_grad():
        for p in model.net.parameters():
            if p.shape == (n + 40,):  # the output's bias
                p[n:] = 100.0  # rows without a piece are the likeliest by far
    assert model.nameless[-40:] == tuple(range(n, n + 40))
    found = model.translate("hello coffee", max_new_tokens=6)
    names = {i: p for p, i in vocab.items()}
    assert found.source_tokens == tuple(names[i] for i in model.ids("hello coffee"))
    assert found.tokens == tuple(names[n - 1 - i] for i in found.ids) and max(found.ids) < n
    seen = []
    from qkv.decode.engine import Engine

    keep = Engine.force
    try:
        Engine.force = lambda self, a, b: seen.append(b) or keep(self, a, b)  # type: ignore[method-assign,func-returns-value]
        model.force(["hello"], ["커피"])
    finally:
        Engine.force = keep  # type: ignore[method-assign]
    assert seen == [[tok.target.encode("커피").ids]]
