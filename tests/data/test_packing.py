"""Causal language models: nothing is lost by packing, nothing crosses a border, windows are random and pure."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tiny import build, document, specials, texts, tokenizer

from qkv.data.objectives import evaluation, feed
from qkv.data.objectives.base import Draw, Specials
from qkv.data.objectives.causal import (
    Causal,
    CausalConfig,
    WindowFeed,
    Windows,
    WindowsConfig,
    best_fit,
    in_a_row,
    positions_of,
)
from qkv.data.stream import Rows
from qkv.errors import ConfigError, DataError

NO_DRAW = Draw(0)


@given(
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=40),
    context=st.integers(1, 20),
    pack=st.sampled_from(["run", "whole"]),
)
@settings(max_examples=200, deadline=None)
def test_packed_rows_are_the_documents_and_nothing_else(sizes, context, pack):
    """Every document is told apart by its ids; each (token, next token) of each stands exactly once."""
    documents = [[1000 * d + k for k in range(n)] for d, n in enumerate(sizes)]
    made = Causal(CausalConfig(context=context, pack=pack), Rows.of(documents), Specials())
    pairs = []
    for i in range(len(made.runs)):
        row = made.row(i, NO_DRAW)
        assert len(row.source) <= context and row.counts.all()
        pairs += zip(row.source.tolist(), row.target.tolist(), strict=True)
        # a group is one document, and one document of a row is one group
        owner = {
            g: set((row.source[row.group == g] // 1000).tolist()) for g in set(row.group.tolist())
        }
        assert all(len(d) == 1 for d in owner.values())
        assert (row.target // 1000 == row.source // 1000).all()  # no loss across a border
        assert (np.diff(row.group) >= 0).all() and row.group[0] == 0
    wanted = [(a, b) for d in documents for a, b in zip(d, d[1:], strict=False)]
    assert sorted(pairs) == wanted
    assert sorted(positions_of(made)) == [(d, k) for d, n in enumerate(sizes) for k in range(n - 1)]
    if pack == "run":
        assert pairs == wanted  # even in order: the rows in a row are the documents
        assert all(len(made.row(i, NO_DRAW).source) == context for i in range(len(made.runs) - 1))
    else:
        whole = [sum(d == run[0] for runs in made.runs for run in runs) for d in range(len(sizes))]
        assert whole == [-(-(n - 1) // context) for n in sizes]  # cut only where it must be


def test_best_fit_wastes_little_and_cuts_nothing_that_fits():
    sizes = np.random.default_rng(0).integers(5, 60, 2000).tolist()
    rows = best_fit(sizes, 64)
    used = [sum(b - a for _, a, b in row) for row in rows]
    assert sum(used) == sum(sizes) and max(used) <= 64
    assert sum(used) / (64 * len(rows)) > 0.97  # 0.99 measured; one document a row gives 0.5
    assert len(in_a_row(sizes, 64)) == -(-sum(sizes) // 64)


def test_groups_of_a_batch_part_the_documents():
    made = build("lm", texts(), context=32)
    batch = feed(made, 256, 1).batch(0)
    assert batch.group.max() > 0
    bos = batch.source == 1
    assert (
        batch.target[batch.target_keep] != 1
    ).all()  # nothing has to guess that a document begins
    before = torch.zeros_like(bos)
    before[:, 1:] = batch.group[:, 1:] != batch.group[:, :-1]
    assert (bos & batch.keep)[:, 1:].sum() == (before & batch.keep).sum()
    assert (bos == before)[:, 1:][batch.keep[:, 1:]].all()
    ends = (batch.target == 2) & batch.target_keep
    after = torch.zeros_like(ends)
    after[:, :-1] = batch.group[:, 1:] != batch.group[:, :-1]
    assert ends.any() and (after[batch.keep] <= ends[batch.keep])[:-1].all()


def test_documents_without_ends_or_of_one_token():
    bare = Specials(vocab_size=400)
    made = build(
        "lm", [{"text": "cat"}, {"text": document(3)}], tokenizer("words"), bare, context=8
    )
    ids = tokenizer("words").encode(document(3)).ids
    assert (
        made.documents[0] == ids and len(made.documents) == 1
    )  # one token predicts nothing: counted
    with pytest.raises(DataError, match="nothing to learn"):
        build("lm", [{"text": "cat"}], tokenizer("words"), bare, context=8)
    one = build("lm", [{"text": "cat"}], tokenizer("words"), specials(), context=8)
    row = one.row(0, NO_DRAW)
    [cat] = tokenizer("words").encode("cat").ids
    assert row.source.tolist() == [1, cat] and row.target.tolist() == [cat, 2]


# -- windows ------------------------------------------------------------------------------------------------------


def long(n=1000, context=16):
    return Windows(WindowsConfig(context=context), np.arange(n, dtype=np.int32), Specials())


def test_windows_are_the_text_with_the_next_token_as_target():
    f = feed(long(), 80, 1)
    assert isinstance(f, WindowFeed) and f.rows == 5 and f.batches_per_epoch == 13
    batch = f.batch(3)
    assert batch.source.shape == (5, 16)
    assert (batch.target == batch.source + 1).all() and (batch.source.diff(dim=1) == 1).all()
    assert (batch.source[:, 0] == batch.index).all() and batch.group is None
    assert batch.keep.all() and batch.target_keep.all()


def test_every_window_is_equally_likely_the_last_one_too():
    n, context = 40, 8
    f = WindowFeed(long(n, context), 80, 3)
    starts = torch.cat([f.batch(s).index for s in range(2000)]).numpy()
    counts = np.bincount(starts, minlength=n - context)
    assert len(counts) == n - context and starts.max() == n - context - 1
    expected = len(starts) / len(counts)
    assert np.abs(counts - expected).max() < 5 * expected**0.5  # five standard deviations


def test_an_evaluation_of_windows_predicts_every_token_but_the_first_once():
    for n in (17, 32, 33, 34, 1000):
        batches = list(evaluation(long(n), 64))
        targets = torch.cat([b.target[b.target_keep] for b in batches])
        assert sorted(targets.tolist()) == list(range(1, n))


def test_texts_become_one_with_their_ends_between():
    values = [{"text": document(i)} for i in (1, 2)]
    made = build("windows", values, context=4)
    tok = tokenizer()
    ids = [tok.encode(v["text"]).ids for v in values]
    assert made.ids.tolist() == [*ids[0], 2, *ids[1], 2]
    assert build("windows", values[:1], context=4).ids.tolist() == ids[0]
    with pytest.raises(DataError, match="no window of 99") as e:
        build("windows", values[:1], context=99)
    assert e.value.code == "QKV-032"
    with pytest.raises(ConfigError):
        CausalConfig(context=0)
