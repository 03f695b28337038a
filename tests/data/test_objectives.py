"""Laws of every objective: a pure function of (seed, step), shapes that fit the net, every example once an epoch."""

import math

import numpy as np
import pytest
import torch
from objective_tiny import CORPORA, build, document, same, specials, task, texts, tokenizer

from qkv.config import from_dict, to_dict
from qkv.data.objectives import OBJECTIVES, Specials, evaluation, feed
from qkv.data.objectives.base import Draw, Row, batch_of
from qkv.errors import ConfigError, DataError, QkvError

DRAWN = ("windows", "mlm", "nsp", "spans", "infill", "contrast")  # the others have no noise
BUDGET = 256


@pytest.mark.parametrize("name", CORPORA)
def test_a_batch_is_a_pure_function_of_seed_and_step(name):
    steps = (0, 1, 7, 1000, 1)
    a = [feed(task(name), BUDGET, 3).batch(s) for s in steps]
    b = feed(task(name), BUDGET, 3)  # another process, another order of asking
    again = {s: b.batch(s) for s in sorted(set(steps), reverse=True)}
    assert all(same(x, again[s]) for x, s in zip(a, steps, strict=True))
    other = feed(task(name), BUDGET, 4)
    assert not all(same(x, other.batch(s)) for x, s in zip(a, steps, strict=True))


@pytest.mark.parametrize("name", [n for n in CORPORA if n != "windows"])
def test_every_example_once_an_epoch_whatever_the_batch_size(name):
    made = task(name)
    rows = []
    for budget in (BUDGET, 3 * BUDGET):
        f = feed(made, budget, 1)
        batches = [f.batch(s) for s in range(f.batches_per_epoch)]
        seen = np.concatenate([b.index.numpy() for b in batches])
        assert sorted(seen.tolist()) == list(range(len(made.lengths)))
        rows.append({int(i): b.source[r][b.keep[r]].tolist() for b in batches for r, i in enumerate(b.index)})  # fmt: skip
    assert rows[0] == rows[1]  # the noise of an example does not depend on its neighbours


@pytest.mark.parametrize("name", DRAWN)
def test_another_epoch_draws_anew_and_the_rest_does_not(name):
    made = task(name)
    first, second = (
        [made.row(i, Draw(1, epoch, i, 16)) for i in range(len(made.lengths))] for epoch in (0, 1)
    )
    if name == "windows":
        f = feed(made, BUDGET, 1)
        assert not same(f.batch(0), f.batch(1))
        return
    changed = sum(
        not np.array_equal(a.source, b.source) or not np.array_equal(a.target, b.target)
        for a, b in zip(first, second, strict=True)
    )
    assert changed > 0.4 * len(first)


@pytest.mark.parametrize("name", CORPORA)
def test_shapes_are_those_of_the_seam(name):
    made = task(name)
    for batch in (feed(made, BUDGET, 1).batch(2), *evaluation(made, BUDGET)):
        B, S = batch.source.shape
        assert batch.keep.shape == (B, S) and batch.index.shape == (B,)
        assert all(x.dtype == torch.int64 for x in (batch.source, batch.index))
        assert not batch.source[~batch.keep].any()  # padding is pad
        assert (batch.keep.int().diff(dim=1) <= 0).all()  # on the right
        for extra in (batch.segment, batch.group):
            assert extra is None or extra.shape == (B, S) and extra.dtype == torch.int64
        if batch.target is not None:
            aligned = name not in ("spans", "infill", "contrast")
            assert batch.target.dtype == torch.int64 and batch.target_keep.dtype == torch.bool
            assert batch.target.shape == batch.target_keep.shape
            assert not aligned or batch.target.shape == (B, S)
            assert not aligned or not (batch.target_keep & ~batch.keep).any()
            assert batch.target_keep.any(1).all() or name == "tag"
        if batch.label is not None:
            assert batch.label.shape == ((B, 2) if name == "answer" else (B,))
            kind = torch.float32 if name == "regress" else torch.int64
            assert batch.label.dtype == kind


@pytest.mark.parametrize("name", CORPORA)
def test_lengths_are_what_rows_have_at_most(name):
    made = task(name)
    lengths = made.lengths
    for i in range(len(lengths)):
        row = made.row(i, Draw(5, 2, i, 16))
        assert len(row.source) <= lengths[i, 0]
        assert row.target is None or len(row.target) <= lengths[i, 1]
        limit = getattr(made.config, "max_tokens", None) or made.config.context
        assert len(row.source) <= limit


@pytest.mark.parametrize("name", CORPORA)
def test_an_evaluation_has_every_example_once_and_is_always_the_same(name):
    made = task(name)
    batches = list(evaluation(made, BUDGET))
    seen = torch.cat([b.index for b in batches]).tolist()
    assert sorted(seen) == list(range(len(made.lengths)))
    assert all(same(a, b) for a, b in zip(batches, evaluation(task(name), BUDGET), strict=True))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_settings_go_through_a_recipe_and_back(name):
    config = OBJECTIVES[name].config
    assert from_dict(config, to_dict(config())) == config()
    made = task(name)
    assert from_dict(config, to_dict(made.config)) == made.config  # classes filled in


@pytest.mark.parametrize("kind", ["chars", "bpe", "unigram", "words"])
@pytest.mark.parametrize("name", CORPORA)
def test_every_kind_of_tokenizer_will_do(name, kind):
    made = task(name, tokenizer(kind))
    assert len(feed(made, BUDGET, 1).batch(0).source)


@pytest.mark.parametrize("name", [n for n in CORPORA if n not in ("tag", "answer", "chat")])
def test_texts_without_a_token_are_counted_or_have_only_ends(name):
    values, settings = CORPORA[name]
    blank = {**values()[0], "text": "\u200b"}

    class Dumb:
        vocab_size = 400

        def encode_batch(self, made):
            return [e if t != "\u200b" else type(e)([], t, tokenizer()) for t, e in zip(made, tokenizer().encode_batch(made), strict=True)]  # fmt: skip

    from objective_tiny import read

    made, report = read([blank, *values()[1:]])
    o = OBJECTIVES[name]
    o.build(o.config(**settings), made, Dumb(), specials(), report)
    counted = {("memory", 1, "no tokens")}
    assert set(report.places()) >= (set() if name in ("lm", "windows") else counted)
    assert report.read == report.used + sum(report.skipped.values())
    made, report = read([blank])
    if name != "lm":  # <bos> <eos>: the end is there to be predicted
        with pytest.raises(DataError) as e:
            o.build(o.config(**settings), made, Dumb(), specials(), report)
        assert e.value.code == "QKV-032" and e.value.fix


@pytest.mark.parametrize("name", CORPORA)
def test_no_record_and_no_room_are_errors_with_a_fix(name):
    with pytest.raises(QkvError) as e:
        build(name, [])
    assert e.value.code == "QKV-032" and e.value.fix
    values, settings = CORPORA[name]
    small = "context" if "context" in settings else "max_tokens"
    with pytest.raises(ConfigError) as e:
        build(name, values(), **(settings | {small: 1 if small == "max_tokens" else 0}))
    assert e.value.fix


@pytest.mark.parametrize("name", CORPORA)
def test_a_missing_field_and_a_poisoned_text_are_named(name):
    values, settings = CORPORA[name]
    rows = values()
    for row in rows[3:4]:
        for key in ("text", "context", "question"):
            if key in row:
                row[key] = "\ud800"  # no character: our tokenizer refuses it
    from objective_tiny import read

    made, report = read(rows)
    o = OBJECTIVES[name]
    o.build(o.config(**settings), made, tokenizer(), specials(), report)
    assert [r for _, line, r in report.places() if line == 4] == ["not encodable"] or name in ("tag", "answer")  # fmt: skip
    assert report.read == report.used + sum(report.skipped.values())
    if name not in ("chat", "tag"):
        with pytest.raises(DataError) as e:
            build(name, [{"label": "1"}, *values()])
        assert e.value.place == "memory:1" and e.value.fix


@pytest.mark.parametrize(
    "name,lacks",
    [("mlm", "mask"), ("nsp", "mask"), ("spans", "eos"), ("infill", "mask"), ("infill", "eos")],
)
def test_a_tokenizer_without_a_needed_token_is_named(name, lacks):
    values, settings = CORPORA[name]
    with pytest.raises(ConfigError, match=f"<{lacks}>") as e:
        build(name, values(), special=specials(**{lacks: None}), **settings)
    assert e.value.code == "QKV-013"
    if name == "spans":
        with pytest.raises(ConfigError, match="sentinels"):
            build(name, values(), special=specials(sentinels=(900,)), **settings)


# -- what they are made of --------------------------------------------------------------------------------------


def test_specials_are_read_off_a_tokenizer():
    tok = tokenizer()
    mine = Specials.of(tok)
    assert (mine.pad, mine.bos, mine.eos, mine.mask) == (0, 1, 2, None)
    assert mine.vocab_size == tok.vocab_size and mine.sentinels == ()

    class Published:
        pad_id, bos_id, eos_id, unk_id, cls_id, sep_id, mask_id = 5, None, None, 7, 8, 9, 10
        vocab_size = 20

        def id_of(self, piece):
            return {"<extra_id_0>": 18, "<extra_id_1>": 19}.get(piece)

        def frame(self, a, b=None):  # RoBERTa's: <s> a </s></s> b </s>, all of one segment
            ids = [8, *a, 9] if b is None else [8, *a, 9, 9, *b, 9]
            return ids, [0] * len(ids)

    theirs = Specials.of(Published())
    assert theirs.sentinels == (18, 19) and theirs.all.tolist() == [5, 8, 9, 10, 18, 19]
    assert 7 in theirs.ordinary and not set(theirs.ordinary.tolist()) & set(theirs.all.tolist())
    a, b = np.array([1, 2]), np.array([3])
    ids, segment, at = theirs.two(a, b)
    assert ids.tolist() == [8, 1, 2, 9, 9, 3, 9] and at == 5 and not segment.any()
    assert theirs.one(a)[0].tolist() == [8, 1, 2, 9] and (theirs.one.extra, theirs.two.extra) == (
        2,
        4,
    )


def test_the_frame_without_a_post_processor_is_that_of_bert():
    a, b = np.array([11, 12]), np.array([13])
    ids, segment, at = specials(cls=7, sep=8).two(a, b)
    assert ids.tolist() == [7, 11, 12, 8, 13, 8]
    assert segment.tolist() == [0, 0, 0, 0, 1, 1] and at == 4
    ids, _, at = specials(cls=None, sep=None).two(a, b)
    assert ids.tolist() == [1, 11, 12, 2, 13, 2] and at == 4
    bare = Specials(vocab_size=20)
    assert bare.two(a, b)[0].tolist() == [11, 12, 13] and bare.one.extra == 0
    assert bare.ends(a).tolist() == [11, 12] and specials().ends(a).tolist() == [1, 11, 12, 2]


def test_random_numbers_are_those_of_every_machine_and_of_the_right_law():
    assert Draw(1, 2, 3).below(1000, 4).tolist() == [719, 12, 99, 887]  # numpy 2.x, x86-64
    assert sorted(Draw(1).order(50).tolist()) == list(range(50))
    u = Draw(0).uniform(100_000)
    assert 0 <= u.min() and u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 1e5)  # five standard errors
    d = Draw(1)
    rounded = [d.rounded(2.3) for _ in range(4000)]
    assert set(rounded) == {2, 3}
    assert abs(np.mean(rounded) - 2.3) < 5 * math.sqrt(0.3 * 0.7 / 4000)
    assert all(len(set(Draw(k).some(9, 4).tolist())) == 4 for k in range(50))
    assert Draw(1).one(1) == 0 and Draw(1).some(0, 0).tolist() == []


def test_rows_are_padded_to_a_multiple_and_padding_is_a_group_of_its_own():
    a = np.array([5, 6, 7])
    rows = [Row(a, a, np.array([True, False, True]), a * 0 + 1, np.array([0, 0, 1])), Row(a[:1], a[:1], np.array([True]), a[:1] * 0, a[:1] * 0)]  # fmt: skip
    batch = batch_of(rows, np.array([4, 2]), 9, 8)
    assert batch.source.tolist() == [[5, 6, 7, 9, 9, 9, 9, 9], [5, 9, 9, 9, 9, 9, 9, 9]]
    assert batch.target_keep.sum(1).tolist() == [2, 1] and batch.index.tolist() == [4, 2]
    assert batch.segment.tolist()[0] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert batch.group.tolist() == [[0, 0, 1, 2, 2, 2, 2, 2], [0, 2, 2, 2, 2, 2, 2, 2]]


def test_long_documents_and_short_ones_are_defined():
    for name in ("mlm", "spans", "infill", "lm"):
        values = [{"text": "cat"}, {"text": " ".join(document(i) for i in range(50))}]
        made = build(name, values, **CORPORA[name][1])
        used = [len(made.row(i, Draw(0, 0, i, 16)).source) for i in range(len(made.lengths))]
        assert max(used) <= CORPORA[name][1].get("max_tokens", 16) and len(used) > 20
    assert len(texts()) == 40
