"""What every tokeniser promises about every text."""

import time
import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qkv.errors import DataError, TokenizerError
from qkv.text import Encoding, Tokenizer
from qkv.text.pipeline import lower

SNIPPETS = [
    "<eos>", "<pad>", "<bos>", "<unk>", "<", ">", "eos", "<0x41>", "<0xEC>", "##", "##a", "▁", " ", "  ", "\n", "\t",
    "\r\n", "\0", "\u2028", "커피", "한잔", unicodedata.normalize("NFD", "한국어 값"), "\u1112", "\u1161", "\u11ab",
    "e\u0301", "a\u0323\u0301", "\u0301", "İ", "ΑΣ", "Σ", "ß", "Ⅷ", "coffee", "School", "😀", "漢", "\u212b", "\u0958", ".", ",",
]  # fmt: skip
TEXTS = st.one_of(
    st.lists(st.sampled_from(SNIPPETS), max_size=12).map("".join), st.text(max_size=30)
)
laws = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@laws
@given(x=TEXTS)
def test_what_is_encoded_comes_back(lossless: Tokenizer, x: str) -> None:
    assert lossless.decode(lossless.encode(x).ids) == lossless.normal(x)


@laws
@given(x=TEXTS)
def test_normal_is_nfc_and_lower_case_where_asked(tk: Tokenizer, x: str) -> None:
    want = x if tk.kind == "bytes" else unicodedata.normalize("NFC", x)
    if tk.config.lowercase:
        want = lower(want)
        want = want if tk.kind == "bytes" else unicodedata.normalize("NFC", want)
    assert tk.normal(x) == want


@laws
@given(x=TEXTS)
def test_other_kinds_lose_exactly_what_is_unknown(tokenizers: dict[str, Tokenizer], x: str) -> None:
    for kind in ("wordpiece", "words", "chars"):
        tk = tokenizers[kind]
        text = tk.normal(x)
        made = tk.encode(text)
        spans = zip(made.ids, made.offsets, strict=True)
        kept = "".join(text[a:b] for i, (a, b) in spans if i != tk.unk_id)
        if kind != "chars" and made.ids[:1] == [tk.unk_id]:
            kept = kept.removeprefix(" ")  # the space before the first word that is left
        assert tk.decode(made.ids) == kept


def test_known_text_comes_back_from_every_kind(tk: Tokenizer, lines: list[str]) -> None:
    known = [x for x in lines if tk.unk_id not in tk.encode(x).ids]
    assert len(known) > (10 if tk.kind == "words" else len(lines) - 1)
    for x in known:
        assert tk.decode(tk.encode(x).ids) == tk.normal(x)


@laws
@given(x=TEXTS)
@example(x="<eos><pad> <bos>\n<unk>")
def test_text_never_becomes_a_special(tk: Tokenizer, x: str) -> None:
    ids = tk.encode(x).ids
    assert not {tk.pad_id, tk.bos_id, tk.eos_id} & set(ids)
    if tk.kind in ("unigram", "bpe", "bytes"):
        assert tk.unk_id not in ids


@laws
@given(x=TEXTS)
def test_offsets_cover_the_callers_text_in_order(tk: Tokenizer, x: str) -> None:
    made = tk.encode(x)
    assert len(made.offsets) == len(made.ids)
    if not x:
        assert made.ids == []
        return
    assert made.offsets[0][0] == 0 and made.offsets[-1][1] == len(x)
    for (a, b), (c, d) in zip(made.offsets, made.offsets[1:], strict=False):
        assert a <= c <= b <= d <= len(x)  # no gap; they overlap only inside one character


@laws
@given(x=TEXTS)
def test_offsets_tile_a_text_that_is_already_normal(
    tokenizers: dict[str, Tokenizer], x: str
) -> None:
    for kind in ("wordpiece", "words", "chars"):
        x = tokenizers[kind].normal(x)
        offsets = tokenizers[kind].encode(x).offsets
        assert "".join(x[a:b] for a, b in offsets) == x
    for kind in ("unigram", "bpe"):
        tk = tokenizers[kind]
        made = tk.encode(x)
        for i, (piece, (a, b)) in enumerate(zip(tk.tokens(made.ids), made.offsets, strict=True)):
            if not piece.startswith("<0x"):
                assert x[a:b] == piece.replace("▁", " ")[i == 0 :]  # the space in front is not x's


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "name", ["unigram", "bpe", "wordpiece", "words-lower", "chars", "unigram-lower"]
)
def test_offsets_point_into_the_text_as_it_was_passed(
    tokenizers: dict[str, Tokenizer], name: str, form: str
) -> None:
    tk = tokenizers[name]
    x = unicodedata.normalize(form, "School 커피 마셔요? É coffee 값")
    made = tk.encode(x)
    for i, (piece, (a, b)) in enumerate(zip(tk.tokens(made.ids), made.offsets, strict=True)):
        seen = piece.removeprefix("##").replace("▁", " ")
        seen = seen[1:] if i == 0 and tk.kind != "chars" else seen
        if not piece.startswith("<"):
            assert tk.normal(x[a:b]) == seen


def test_a_jamo_points_to_its_syllable_or_to_itself(tokenizers: dict[str, Tokenizer]) -> None:
    tk = tokenizers["chars-jamo"]
    made = tk.encode("한 만")
    assert made.offsets == [(0, 1)] * 3 + [(1, 2)] + [(2, 3)] * 3
    assert tk.decode(made.ids) == "한 만"
    apart = tk.encode(unicodedata.normalize("NFD", "한") + " 만")
    assert apart.ids == made.ids
    assert apart.offsets == [(0, 1), (1, 2), (2, 3), (3, 4)] + [(4, 5)] * 3


@laws
@given(xs=st.lists(TEXTS, max_size=5))
def test_a_batch_is_its_members(tk: Tokenizer, xs: list[str]) -> None:
    assert tk.encode_batch(xs) == [tk.encode(x) for x in xs]


@laws
@given(data=st.data())
def test_any_ids_decode_to_normal_text(tk: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tk.vocab_size - 1), max_size=20))
    text = tk.decode(ids)
    assert tk.kind == "bytes" or unicodedata.is_normalized("NFC", text)
    specials = data.draw(st.lists(st.integers(0, 3), max_size=3))
    assert tk.decode(specials + ids + specials) == text
    assert len(tk.tokens(ids)) == len(ids)


@pytest.mark.parametrize("ids", [[-1], [4, 10**6], [10**30]])
def test_unknown_ids_are_refused(tk: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(TokenizerError) as e:
        tk.decode(ids)
    assert e.value.code == "QKV-041" and e.value.place and e.value.fix


def test_a_lone_surrogate_is_refused(tk: Tokenizer) -> None:
    with pytest.raises(DataError, match="U\\+D800") as e:
        tk.encode("ab\ud800")
    assert e.value.code == "QKV-030" and e.value.place == "character 2"


def test_words_keep_their_space_and_punctuation_stands_alone(
    tokenizers: dict[str, Tokenizer],
) -> None:
    words = tokenizers["words"]
    text = "커피, 좋아해요? (yes)"
    cut = [text[a:b] for a, b in words.encode(text).offsets]
    assert cut == ["커피", ",", " 좋아해요", "?", " (", "yes", ")"]


def test_ids_of_the_specials_are_fixed(tk: Tokenizer) -> None:
    assert tk.tokens([0, 1, 2, 3]) == ["<pad>", "<bos>", "<eos>", "<unk>"]
    assert (tk.pad_id, tk.bos_id, tk.eos_id, tk.unk_id) == (0, 1, 2, 3)


def test_encodings_are_values(tokenizers: dict[str, Tokenizer]) -> None:
    a, b = (tokenizers["chars"].encode("커피") for _ in range(2))
    assert a == b and isinstance(a, Encoding) and len(a) == 2
    assert repr(a) == f"Encoding(ids={a.ids}, offsets=[(0, 1), (1, 2)])"


HOSTILE = [
    "a",
    " ",
    "<eos>",
    "😀",
    "a\u0301\u0323",
    "한",
    "\u1112\u1161\u11ab",
    "ㅋ",
    ".,",
    "\n",
    "\u0301\u0323",
    "the ",
]


@pytest.mark.parametrize("name", ["unigram", "bpe-lower-jamo", "wordpiece", "chars"])
def test_time_grows_with_the_length_not_its_square(
    tokenizers: dict[str, Tokenizer], name: str
) -> None:
    tk = tokenizers[name]

    def cost(x: str) -> float:
        a = time.process_time()  # not disturbed by what else the machine does
        assert tk.encode(x).offsets
        return time.process_time() - a

    small = 1 << 11
    for unit in HOSTILE:
        n = small // len(unit)
        tk.encode(unit)
        # 8 times the text: 8 times the time if linear, 64 if quadratic
        assert cost(unit * (8 * n)) < 30 * max(cost(unit * n), 1e-3), unit
    x = "<eos>😀한 " * (1 << 17)  # 1 MB and more
    assert len(tk.encode(x).ids) > len(x) // 8


@pytest.mark.parametrize("kind", ["bpe-mask", "wordpiece-mask"])  # unigram may cut the space off
def test_a_special_token_stands_where_a_word_with_its_space_does(
    kind: str, tokenizers: dict[str, Tokenizer]
) -> None:
    """Cut out a whole word and the ids around it stay as they were: what masked words are learned with."""
    tk = tokenizers[kind]
    for text, word in (("school Friend opened.", "Friend"), ("coffee Ocean likes!", "coffee")):
        whole = tk.encode(text)
        at = text.index(word)
        inside = [at <= b - 1 < at + len(word) for _, b in whole.offsets]
        made = tk.around(text.split(word), 7777)
        left = [i for i, own in zip(whole.ids, inside, strict=True) if not own]
        assert made.count(7777) == 1 and [i for i in made if i != 7777] == left
        assert made.index(7777) == inside.index(True)
