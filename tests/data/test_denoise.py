"""Masked tokens, next sentences, span corruption, infilling: proportions within binomial bounds, and inverses."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tiny import build, document, specials, texts, tokenizer

from qkv.data.objectives.base import Draw, Specials
from qkv.data.objectives.denoise import (
    InfillConfig,
    SpanConfig,
    composed,
    corrupt,
    infill,
    permuted,
    place,
    restore,
)
from qkv.data.objectives.denoise import _poisson as poisson
from qkv.data.objectives.masked import MaskConfig, mask_tokens
from qkv.data.objectives.texts import fitted, pieces, sentences, solid, words
from qkv.errors import ConfigError, DataError

MASK = 990
SPECIAL = Specials(pad=0, bos=1, eos=2, cls=988, sep=989, mask=MASK, vocab_size=991)


def within(seen, n, p):
    """Five standard deviations of a binomial: one false alarm in 1.7 million."""
    return abs(seen - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1


# -- masked tokens ------------------------------------------------------------------------------------------------


def test_fifteen_percent_are_chosen_and_of_those_eighty_ten_ten():
    rng = np.random.default_rng(0)
    chosen = masked = kept = drawn = total = 0
    seen = Counter()
    for i in range(2000):
        ids = rng.integers(3, 988, 100)
        made, which = mask_tokens(ids, Draw(1, 0, i), MaskConfig(), SPECIAL)
        assert (made[~which] == ids[~which]).all()
        total, chosen = total + 100, chosen + which.sum()
        masked += (made[which] == MASK).sum()
        kept += (made[which] == ids[which]).sum()
        other = which & (made != MASK) & (made != ids)
        drawn += other.sum()
        seen.update(made[other].tolist())
    assert chosen == 15 * 2000  # exactly: 15 of each 100
    assert within(masked, chosen, 0.8) and within(drawn, chosen, 0.1 * (1 - 1 / 985))
    assert within(kept, chosen, 0.1 + 0.1 / 985)
    assert min(seen) >= 3 and max(seen) < 988  # ordinary ids only, and all alike:
    assert max(seen.values()) < 5 + drawn / 985 + 5 * math.sqrt(drawn / 985)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 11])
def test_short_rows_have_the_same_share_on_average_but_never_nothing(n):
    counts = [
        mask_tokens(np.full(n, 50), Draw(2, 0, i), MaskConfig(), SPECIAL)[1].sum()
        for i in range(3000)
    ]
    assert min(counts) >= 1
    share = 0.15 * n
    if share >= 1:
        low = int(share)
        assert set(counts) == {low, low + 1}
        assert within(sum(counts) - 3000 * low, 3000, share - low)
    else:
        assert set(counts) == {1}


def test_special_tokens_are_never_chosen_and_a_row_of_them_alone_has_no_choice():
    ids = np.array([988, 1, 50, 2, 0, 989, MASK])
    for i in range(50):
        made, which = mask_tokens(ids, Draw(i), MaskConfig(rate=1.0), SPECIAL)
        assert which.tolist() == [False, False, True, False, False, False, False]
    made, which = mask_tokens(ids[:2], Draw(0), MaskConfig(), SPECIAL)
    assert not which.any() and made.tolist() == [988, 1]
    assert mask_tokens(ids[:0], Draw(0), MaskConfig(), SPECIAL)[0].tolist() == []


def test_every_position_is_chosen_alike():
    counts = np.zeros(20)
    for i in range(4000):
        counts += mask_tokens(np.arange(20, 40), Draw(i), MaskConfig(), SPECIAL)[1]
    assert all(within(c, 4000, 0.15) for c in counts)


def test_whole_words_are_chosen_with_all_their_pieces():
    word = np.repeat(np.arange(12), [1, 3, 2, 1, 5, 1, 1, 2, 1, 1, 1, 1])
    sizes = []
    for i in range(1000):
        ids = np.arange(100, 120)
        config = MaskConfig(whole_words=True)
        _, which = mask_tokens(ids, Draw(i), config, SPECIAL, word)
        for w in range(12):
            assert len(set(which[word == w].tolist())) == 1
        sizes.append(which.sum())
        assert which.sum() <= 3 or len(set(word[which].tolist())) == 1  # 15 % of 20 is 3
    assert 2.5 < np.mean(sizes) < 3.5


@given(text=st.text(st.sampled_from("ab가 .,\u0301\n나3"), max_size=40))
@settings(max_examples=200, deadline=None)
def test_words_are_runs_of_letters_and_their_marks(text):
    """Per character: the number changes at white space, at other characters, and nowhere else."""
    offsets = [(i, i + 1) for i in range(len(text))]
    number = words(text, offsets)
    assert (
        len(number) == len(text) and (np.diff(number) >= 0).all() and (np.diff(number) <= 1).all()
    )
    for i in range(1, len(text)):
        a, b = text[i - 1], text[i]
        letters = (a.isalnum() or a == "\u0301") and (b.isalnum() or b == "\u0301")
        if letters:
            assert number[i] == number[i - 1]
        else:
            assert number[i] == number[i - 1] + 1


def test_words_follow_pieces_with_a_space_in_front():
    tok = tokenizer("bpe")
    text = "고양이는 well-known naïve"
    number = words(text, tok.encode(text).offsets)
    pieces_of = {}
    for n, span in zip(number.tolist(), tok.encode(text).offsets, strict=True):
        a, b = solid(text, span)
        pieces_of[n] = pieces_of.get(n, "") + text[a:b]
    assert "".join(pieces_of.values()) == text.replace(" ", "")
    assert set(pieces_of.values()) <= {"고양이는", "well-known", "naïve"}  # one piece is one word


def test_a_masked_row_is_its_text_in_a_frame():
    made = build("mlm", texts(), max_tokens=20)
    sp, tok = specials(), tokenizer()
    back: dict[int, list[int]] = {}
    for i in range(len(made.piece)):
        row = made.row(i, Draw(0, 0, i))
        assert (row.source[0], row.source[-1]) == (sp.cls, sp.sep) and len(row.source) <= 20
        assert row.counts[1:-1].any() and not row.counts[[0, -1]].any()
        assert (row.target[~row.counts] == row.source[~row.counts]).all()
        back.setdefault(int(made.piece[i, 0]), []).extend(row.target[1:-1].tolist())
    assert [back[t] for t in range(40)] == [tok.encode(v["text"]).ids for v in texts()]


def test_settings_of_masks_are_checked():
    for wrong in ({"rate": 1.5}, {"masked": 0.9, "random": 0.2}, {"masked": float("nan")}):
        with pytest.raises(ConfigError):
            MaskConfig(**wrong)


# -- next sentences -------------------------------------------------------------------------------------------------


def unframed(made, row):
    """The two texts of a row, their masks undone."""
    sp = made.specials
    ids = row.source if row.target is None else row.target
    ends = np.flatnonzero(ids == sp.sep)
    return ids[1 : ends[0]], ids[ends[0] + 1 : ends[1]]


def contains(whole, part):
    whole, part = list(map(int, whole)), list(map(int, part))
    return any(whole[k : k + len(part)] == part for k in range(len(whole) - len(part) + 1))


def test_half_of_the_pairs_follow_and_the_rest_come_from_other_documents():
    made = build(
        "nsp", [{"text": document(i, 14) + " " + str(i)} for i in range(80)], max_tokens=48
    )
    labels = []
    for i in range(len(made.parts)):
        for epoch in range(4):
            row = made.row(i, Draw(1, epoch, i))
            a, b = unframed(made, row)
            d = int(made.parts[i, 0])
            own = made.documents[d]
            assert len(a) and len(b) and len(row.source) <= 48
            assert contains(own, a)
            if row.label == 0:
                assert contains(own, b)
            else:
                others = [j for j in range(80) if j != d and contains(made.documents[j], b)]
                assert others
            labels.append(row.label)
            k = int(np.flatnonzero(row.source == made.specials.sep)[0])
            assert row.segment.tolist() == [0] * (k + 1) + [1] * (len(row.source) - k - 1)
    assert within(len(labels) - sum(labels), len(labels), 0.5)


def test_half_of_the_pairs_of_short_documents_follow_too():
    values = [{"text": f"{document(i, 3)} {document(i + 50, 2)}"} for i in range(60)]
    made = build("nsp", values, max_tokens=512, mask=None, short=0.0)
    labels = [made.row(i, Draw(1, e, i)).label for i in range(len(made.parts)) for e in range(8)]
    assert within(len(labels) - sum(labels), len(labels), 0.5)


def test_every_sentence_is_in_one_first_part_and_what_follows_follows():
    made = build("nsp", texts(), max_tokens=64, mask=None, short=0.0)
    spans: dict[int, list] = {}
    for d, first, end, _ in made.parts.tolist():
        spans.setdefault(d, []).append((first, end))
    for d, found in spans.items():
        n = len(made.starts[d]) - 1
        assert found[0][0] == 0 and found[-1][1] == n
        assert all(a[1] == b[0] for a, b in zip(found, found[1:], strict=False))
    assert sorted(spans) == list(range(40))
    for i in range(len(made.parts)):
        row = made.row(i, Draw(1, 0, i))
        assert row.target is None and row.counts is None
        a, b = unframed(made, row)
        if row.label == 0 and len(row.source) < 64:  # nothing was trimmed: B begins where A ends
            assert contains(made.documents[int(made.parts[i, 0])], np.concatenate([a, b]))


def test_a_tenth_of_the_examples_aims_short():
    long_documents = [{"text": " ".join(document(i) for i in range(k, k + 12))} for k in range(60)]
    made = build("nsp", long_documents, max_tokens=64)
    aims = made.parts[:, 3]
    short = (aims < 61).sum()
    # a short example takes fewer sentences, so among examples they are a little more than one in ten draws
    assert within(short, len(aims), 0.1 * 60 / 61)
    assert aims.min() >= 2 and aims.max() == 61
    assert (build("nsp", long_documents, max_tokens=64, short=0.0).parts[:, 3] == 61).all()


def test_sentences_too_long_are_trimmed_at_both_ends():
    values = [{"text": " ".join(f"{w}" for w in ["cat"] * 200)} for _ in range(3)]
    with pytest.raises(DataError, match="one sentence"):
        build("nsp", values)
    two = {"text": ". ".join([" ".join(["cat"] * 100)] * 2)}
    made = build("nsp", [*values, two], max_tokens=20, mask=None)
    assert len(made.parts) == 5  # one sentence each: nothing follows
    for i in range(3):
        row = made.row(i, Draw(0, 0, i))
        a, b = unframed(made, row)
        assert row.label == 1 and len(row.source) == 20 and {len(a), len(b)} == {8, 9}
    with pytest.raises(DataError, match="another|other"):
        build("nsp", values[:1])


# -- span corruption ------------------------------------------------------------------------------------------------


@given(
    n=st.integers(0, 300),
    rate=st.sampled_from([0.01, 0.15, 0.5, 0.9, 1.0]),
    mean=st.sampled_from([1.0, 3.0, 10.0]),
    key=st.integers(0, 1000),
)
@settings(max_examples=300, deadline=None)
def test_corrupted_spans_can_be_put_back(n, rate, mean, key):
    ids, sentinels = np.arange(1000, 1000 + n), np.arange(400)
    config = SpanConfig(rate=rate, mean=mean)
    source, target = corrupt(ids, Draw(key), config, sentinels)
    assert restore(source, target, sentinels).tolist() == ids.tolist()
    marks = target[target < 400].tolist()
    assert marks == list(range(len(marks)))  # in order, and one more at the end
    assert target[-1] == len(marks) - 1 and source[source < 400].tolist() == marks[:-1]
    if n:
        noise, spans = config.counts(n)
        assert (target >= 400).sum() == noise and len(marks) == spans + 1
        assert (len(source) + 1, len(target) + 1) == config.sizes(n)
        hidden = np.isin(ids, target)
        begins = hidden & ~np.concatenate([[False], hidden[:-1]])
        assert begins.sum() == spans  # spans never touch
        assert n == 1 or noise < n


def test_spans_are_fifteen_percent_of_three_tokens_and_fall_anywhere():
    config, ids = SpanConfig(), np.arange(1000, 1100)
    assert config.counts(100) == (15, 5) and config.counts(512) == (77, 26)
    hidden = np.zeros(100)
    for i in range(2000):
        _, target = corrupt(ids, Draw(i), config, np.arange(100))
        hidden += np.isin(ids, target)
    assert hidden.sum() == 2000 * 15
    # a token at the border of the text has fewer ways to be in a span; every other is hidden alike
    assert all(within(c, 2000, 0.15) for c in hidden[5:-5])
    assert hidden[[0, -1]].min() > 0


@given(total=st.integers(1, 60), key=st.integers(0, 99), data=st.data())
@settings(max_examples=100, deadline=None)
def test_compositions_and_places(total, key, data):
    parts = data.draw(st.integers(1, total))
    made = composed(total, parts, Draw(key))
    assert made.sum() == total and len(made) == parts and made.min() >= 1
    at = place(total, parts, Draw(key))
    assert len(set(at.tolist())) == parts and 0 <= at.min() and at.max() <= total


def test_compositions_are_equally_likely():
    seen = Counter(tuple(composed(5, 3, Draw(i)).tolist()) for i in range(6000))
    assert len(seen) == 6 and all(within(c, 6000, 1 / 6) for c in seen.values())


@pytest.mark.parametrize("most", [3, 10, 64, 128, 512])
def test_the_longest_text_fills_the_source_and_none_is_longer(most):
    config = SpanConfig(max_tokens=most)
    assert config.sizes(config.room)[0] == most
    assert all(config.sizes(n)[0] <= most for n in range(1, config.room + 1))
    assert config.sizes(config.room + 1)[0] > most
    if most == 512:
        assert config.room == 568  # Raffel et al.'s own preparation cuts at 568 for 512


def test_rows_of_spans_end_in_eos_and_texts_come_back_whole():
    made = build("spans", texts(), max_tokens=24)
    back: dict[int, list[int]] = {}
    for i in range(len(made.piece)):
        row = made.row(i, Draw(3, 0, i))
        assert row.source[-1] == row.target[-1] == 2 and row.counts is None
        text = restore(row.source[:-1], row.target[:-1], made.sentinels)
        back.setdefault(int(made.piece[i, 0]), []).extend(text.tolist())
    assert [back[t] for t in range(40)] == [tokenizer().encode(v["text"]).ids for v in texts()]


# -- infilling --------------------------------------------------------------------------------------------------------


@given(n=st.integers(0, 200), rate=st.sampled_from([0.0, 0.1, 0.3, 0.5]), key=st.integers(0, 500))
@settings(max_examples=200, deadline=None)
def test_infilling_keeps_what_it_does_not_mask_in_order(n, rate, key):
    ids = np.arange(1000, 1000 + n)
    made = infill(ids, Draw(key), InfillConfig(rate=rate), MASK)
    kept = made[made != MASK]
    assert (np.diff(kept) > 0).all() and np.isin(kept, ids).all()
    assert len(made) <= n and abs((n - len(kept)) - rate * n) < 1
    masks = made == MASK
    assert not (masks[1:] & masks[:-1]).any()  # spans never touch
    assert rate or made.tolist() == ids.tolist()


def test_spans_of_infilling_are_those_of_poisson():
    sizes, total, empty = Counter(), 0, 0
    for i in range(400):
        ids = np.arange(1000, 1400)
        made = infill(ids, Draw(i), InfillConfig(), MASK)
        assert 400 - (made != MASK).sum() == 120
        at = np.flatnonzero(made == MASK)
        for k in at.tolist():
            before = made[k - 1] if k else 999
            after = made[k + 1] if k + 1 < len(made) else 1400
            size = int(after - before - 1)
            sizes[size] += 1
            empty += size == 0
            total += 1
    for n in range(7):
        p = math.exp(-3) * 3**n / math.factorial(n)
        # the last span of a row (one of about 40) is cut to fit: 3 % of leeway beside the binomial bound
        assert abs(sizes[n] - total * p) <= 5 * math.sqrt(total * p) + 0.03 * total, n
    assert within(empty, total, math.exp(-3))
    u = (np.arange(10_000) + 0.5) / 10_000  # every quantile once
    law = Counter(poisson(3.0, float(x)) for x in u)
    assert all(
        abs(law[n] / 1e4 - math.exp(-3) * 3**n / math.factorial(n)) < 2e-4 for n in range(12)
    )


def test_sentences_are_permuted_whole():
    sentence = np.array([0, 0, 0, 1, 2, 2])
    ids = np.arange(6)
    seen = Counter(tuple(permuted(ids, sentence, Draw(i)).tolist()) for i in range(3000))
    assert len(seen) == 6 and (0, 1, 2, 3, 4, 5) in seen and (4, 5, 3, 0, 1, 2) in seen
    assert all(within(c, 3000, 1 / 6) for c in seen.values())
    assert permuted(ids[:0], sentence[:0], Draw(0)).tolist() == []


def test_an_infilled_row_asks_for_the_original():
    made = build("infill", texts(), max_tokens=24)
    back: dict[int, list[int]] = {}
    moved = 0
    for i in range(len(made.piece)):
        row = made.row(i, Draw(3, 0, i))
        assert row.source[0] == row.target[0] == 1 and row.source[-1] == row.target[-1] == 2
        kept = [x for x in row.source[1:-1].tolist() if x != made.specials.mask]
        own = row.target[1:-1].tolist()
        assert not Counter(kept) - Counter(own)  # nothing that was not there
        moved += kept != [x for x in own if x in kept][: len(kept)]
        back.setdefault(int(made.piece[i, 0]), []).extend(own)
        starts = np.flatnonzero(np.diff(made.sentence[int(made.piece[i, 0])])) + 1
        a = int(made.piece[i, 1])
        assert a == 0 or a in starts or made.piece[i - 1, 2] - made.piece[i - 1, 1] == 22
    assert moved > 10
    assert [back[t] for t in range(40)] == [tokenizer().encode(v["text"]).ids for v in texts()]
    with pytest.raises(ConfigError):
        InfillConfig(rate=0.6)


# -- cutting ----------------------------------------------------------------------------------------------------------


@given(n=st.integers(0, 100), most=st.integers(1, 30), ends=st.sets(st.integers(-5, 110)))
@settings(max_examples=200, deadline=None)
def test_pieces_are_the_whole_and_end_where_they_may(n, most, ends):
    made = pieces(n, most, ends)
    assert [k for a, b in made for k in range(a, b)] == list(range(n))
    assert all(0 < b - a <= most for a, b in made)
    for (a, b), (_, after) in zip(made, made[1:], strict=False):
        if b in ends:
            assert not [e for e in ends if b < e < n and e - a <= most]  # the last that fits
        else:
            assert b - a == most or any(b < e <= n for e in [*ends, n])
        assert after > b


def test_sentences_end_at_full_stops_and_lines():
    text = 'Mr. Kim said "Hi." Then left!\n\n그래요. 3.14 is pi… 끝'
    offsets = [(i, i + 1) for i in range(len(text))]
    number = sentences(text, offsets)
    parts = [
        "".join(c for c, k in zip(text, number, strict=True) if k == n)
        for n in range(number[-1] + 1)
    ]
    assert "".join(parts) == text
    assert [p.strip() for p in parts] == ["Mr.", 'Kim said "Hi."', "Then left!", "그래요.", "3.14 is pi…", "끝"]  # fmt: skip
    assert sentences("", []).tolist() == []


@given(a=st.integers(0, 30), b=st.integers(0, 30), room=st.integers(1, 40))
def test_the_longer_of_two_is_cut_first(a, b, room):
    x, y = fitted(np.arange(a), np.arange(b), room)
    assert len(x) + len(y) == min(a + b, room)
    la, lb = a, b
    while la + lb > room:  # the definition: one token at a time
        la, lb = (la - 1, lb) if la > lb else (la, lb - 1)
    assert (len(x), len(y)) == (la, lb)
