"""Text as it comes: joined it is the text, no piece ends in half a character or holds a part of a stop string."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.decode.reader import HALF, Reader
from qkv.text import TextConfig, train


def of_bytes(ids):
    return bytes(ids).decode("utf-8", errors="replace")


def joined(reader, ids, prompt=()):
    words, pieces = reader.start(prompt), []
    for i in ids:
        pieces.append(words.add(i))
        if words.stopped:
            break
    return [*pieces, words.close()]


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("한글é😀👍🏽ab \n"), max_size=30
)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(TEXTS.filter(bool), max_size=2))
def test_pieces_of_bytes_are_whole_characters_and_stop_in_time(text, stop):
    data = list(text.encode())
    pieces = joined(Reader(of_bytes, tuple(stop)), data)
    found = [at for at in (text.find(s) for s in stop) if at >= 0]
    assert "".join(pieces) == (text[: min(found)] if found else text)
    if HALF not in text:
        assert not any(HALF in p for p in pieces)
    assert Reader(of_bytes, tuple(stop)).text((), data) == "".join(pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40))
def test_any_bytes_give_the_text_of_all_of_them(ids):
    assert "".join(joined(Reader(of_bytes), ids)) == of_bytes(ids)


def test_pieces_come_as_soon_as_they_can():
    assert joined(Reader(of_bytes), list("a한b".encode())) == ["a", "", "", "한", "b", ""]
    assert joined(Reader(of_bytes, ("\n\n",)), list(b"a\nb\n\nc")) == ["a", "", "\nb", "", "", ""]
    assert joined(Reader(of_bytes, ("xyz",)), list(b"axy")) == ["a", "", "", "xy"]


def test_the_first_space_after_a_prompt_is_kept():
    words = ["the", "cat", "sat"]
    reader = Reader(lambda ids: " ".join(words[i] for i in ids))  # as sentencepiece: none in front
    assert reader.text([0], [1, 2]) == " cat sat" and reader.text((), [1, 2]) == "cat sat"
    assert joined(reader, [1, 2], prompt=[0]) == [" cat", " sat", ""]


def test_a_mark_that_joins_the_character_before_is_not_lost():
    reader = Reader(lambda ids: unicodedata.normalize("NFC", "".join(map(chr, ids))))
    pieces = joined(reader, [ord("e"), 0x301, ord("x")])
    assert pieces == ["e", "\u0301", "x", ""]
    assert reader.text((), [ord("e"), 0x301, ord("x")]) == "e\u0301x"


def test_bytes_that_make_no_character_do_not_take_back_what_was_told():
    """Decoders that give up on a whole run of bytes turn "a" into two of the replacement once a bad one follows."""
    reader = Reader(lambda ids: of_bytes(ids) if HALF not in of_bytes(ids) else HALF * len(ids))
    assert joined(reader, [ord("a"), 0xFF, ord("b")]) == ["a", "", "", HALF * 2]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes", "chars"])
def test_our_tokenizers_are_read_along(kind):
    lines = ["the cat sat on the mat", "책을 읽는 사람이 많다", "a dog ate 밥을 😀 today"] * 3
    tok = train(lines, TextConfig(kind=kind, vocab_size=300 if kind != "unigram" else 330))
    ids = tok.encode("the dog 책을 읽는 😀 mat").ids
    for cut in (0, 3, 7):
        pieces = joined(Reader(tok.decode), ids[cut:], prompt=ids[:cut])
        assert "".join(pieces) == tok.decode(ids)[len(tok.decode(ids[:cut])) :]
