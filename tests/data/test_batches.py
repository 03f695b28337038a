"""Each example exactly once per epoch, within the budget, as a pure function of (seed, step)."""

import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.data.batches import Order, fixed_batches, padding, permutation, plan
from qkv.data.report import Pair, SkipReport
from qkv.data.sources import PairSource, read_pairs
from qkv.data.stream import Corpus, Rows, Stream, collate, encode, sampler
from qkv.errors import ConfigError, DataError


def lengths(n, seed=0, mean=14):
    """Like Multi30k: both sides near each other, a long right tail."""
    rng = np.random.default_rng(seed)
    s = np.clip(rng.gamma(9, mean / 9, n), 2, 45)
    return np.stack([s, np.clip(s * rng.normal(1, 0.18, n), 2, 45)], axis=1).astype(int)


@given(
    n=st.integers(1, 400),
    budget=st.integers(1, 900),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 10**6),
    multiple=st.sampled_from([1, 2, 8, 16]),
    mix=st.integers(1, 12),
    longest=st.integers(1, 120),
)
@settings(max_examples=300, deadline=None)
def test_every_example_once_per_epoch_within_the_budget(
    n, budget, seed, epoch, multiple, mix, longest
):
    L = np.random.default_rng(n).integers(1, longest + 1, (n, 2))
    order = Order(L, budget, seed, multiple=multiple, mix=mix)
    batches = order.plan(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    assert len(batches) == order.batches_per_epoch == len(order.plan(epoch + 1))
    for index in batches:
        width = -(-int(L[index].max()) // multiple) * multiple
        assert len(index) == 1 or len(index) * width <= budget
    again = plan(L, budget, seed, epoch, multiple=multiple, mix=mix)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@given(
    n=st.integers(1, 80),
    budget=st.integers(1, 300),
    accumulation=st.integers(1, 4),
    ranks=st.integers(1, 4),
    epochs=st.integers(1, 3),
    stop=st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_accumulation_ranks_and_interruption_change_nothing(
    n, budget, accumulation, ranks, epochs, stop
):
    """Micro-batch m of the run belongs to step m // (accumulation x ranks): whoever computes it, it is the same."""
    L = np.random.default_rng(n).integers(1, 40, (n, 2))
    order = Order(L, budget, 7)
    total = order.batches_per_epoch * epochs
    whole = [order.batch(m) for m in range(total)]
    stop %= total + 1
    resumed = Order(L, budget, 7)  # a new process that knows only the step
    halves = [order.batch(m) for m in range(stop)] + [resumed.batch(m) for m in range(stop, total)]
    dealt = {m: Order(L, budget, 7).batch(m) if m == stop else resumed.batch(m)
             for rank in range(ranks) for m in range(total) if m // accumulation % ranks == rank}  # fmt: skip
    for m, (epoch, index) in enumerate(whole):
        for other_epoch, other in (halves[m], dealt[m]):
            assert epoch == other_epoch and np.array_equal(index, other)
    for epoch in range(epochs):
        seen = np.concatenate([i for e, i in whole if e == epoch])
        assert sorted(seen.tolist()) == list(range(n))


def test_epochs_and_seeds_differ_and_mix():
    L = lengths(29_000)
    order = Order(L, 2048, 1)
    first, second = ({frozenset(b.tolist()) for b in order.plan(e)} for e in (0, 1))
    assert len(first & second) < 0.05 * len(first)
    assert not np.array_equal(order.plan(0)[0], Order(L, 2048, 2).plan(0)[0])
    targets = np.array([L[b][:, 1].mean() for b in order.plan(0)])
    assert abs(np.corrcoef(targets[1:], targets[:-1])[0, 1]) < 0.2  # no drift from short to long


def test_permutation_is_one_and_is_the_one_of_every_machine():
    assert sorted(permutation(1000, 3, 4).tolist()) == list(range(1000))
    assert permutation(8, 0, 0).tolist() == PERMUTATION_OF_8
    assert permutation(8, 0, 1).tolist() != PERMUTATION_OF_8 != permutation(8, 1, 0).tolist()


PERMUTATION_OF_8 = [0, 3, 7, 5, 1, 2, 6, 4]  # numpy keeps the stream of Philox, NEP 19


@pytest.mark.parametrize("budget", [1024, 2048, 4096])
def test_padding_is_small(budget):
    L = lengths(29_000)
    assert padding(L, plan(L, budget, 0, 0)) < 0.08


def test_planning_and_seeking_are_quick():
    L = lengths(30_000)
    order = Order(L, 4096, 0)
    took = []
    for epoch in range(5):
        t = time.perf_counter()
        order.plan(epoch)
        took.append(time.perf_counter() - t)
    assert min(took) < 0.03
    t = time.perf_counter()
    assert order.batch(10**9)[0] == 10**9 // order.batches_per_epoch
    assert time.perf_counter() - t < 1


def test_impossible_plans_are_refused():
    for bad, budget in ((np.zeros((0, 2), int), 10), (lengths(3), 0)):
        with pytest.raises(ConfigError):
            Order(bad, budget, 0)


@given(
    n=st.integers(0, 300),
    budget=st.integers(1, 2000),
    columns=st.sampled_from([1, 2]),
    rows=st.integers(1, 50),
)
@settings(max_examples=100, deadline=None)
def test_evaluation_batches_hold_every_example_once(n, budget, columns, rows):
    L = (
        np.random.default_rng(n)
        .integers(0, 90, (n, 2))[:, :columns]
        .squeeze(1 if columns == 1 else ())
    )
    batches = fixed_batches(L, budget, max_rows=rows)
    assert sorted(i for b in batches for i in b.tolist()) == list(range(n))
    for index in batches:
        widest = max(16, -(-int(L[index].max()) // 16) * 16)
        assert len(index) == 1 or len(index) * widest <= budget
        assert len(index) <= rows


class Words:
    """A tokenizer of characters that samples by reversing and fails on the word poison."""

    def encode_batch(self, texts):
        if any("poison" in text for text in texts):
            raise ValueError("poison")
        return [type("E", (), {"ids": [3 + ord(c) for c in text if c != "-"]}) for text in texts]

    def sample(self, text, rng, alpha):
        ids = self.encode_batch([text])[0].ids
        return ids * 50 if rng.random() < alpha / 2 else rng.sample(ids, len(ids))


def corpus(n=300, **options) -> Corpus:
    report = SkipReport()
    pairs = read_pairs(PairSource(f"builtin:reverse?n={n}&length=12"), report)
    return encode(pairs, Words(), Words(), report, **options)


def test_a_batch_holds_its_examples_and_their_ends():
    made = corpus()
    stream = Stream(made, 256, seed=5, multiple=4)
    seen = []
    for step in range(stream.batches_per_epoch):
        batch = stream.batch(step)
        assert batch.source.shape[1] % 4 == 0 and batch.target.shape[1] % 4 == 0
        assert batch.source.dtype == torch.long and batch.keep.dtype == torch.bool
        for ids, keep, side in (
            (batch.source, batch.keep, made.source),
            (batch.target, batch.target_keep, made.target),
        ):
            assert not ids[~keep].any()
            for row, real, i in zip(ids, keep, batch.index.tolist(), strict=True):
                assert row[real].tolist() == [*side[i], 2]
                assert real.tolist() == sorted(real.tolist(), reverse=True)  # right padding
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(len(made)))
    bare = collate(np.array([1, 0]), made.source, pad_id=9, eos_id=2, source_eos=False)
    assert (
        bare.target is None and bare.source[bare.keep].tolist() == made.source[1] + made.source[0]
    )
    assert (bare.source[~bare.keep] == 9).all()


def test_sampling_is_a_function_of_seed_epoch_and_example():
    made = corpus(max_tokens=40)
    make = lambda budget: Stream(made, budget, 1, resample=sampler(Words(), Words(), 0.2))  # noqa: E731
    a, b = make(256), make(512)
    rows = [
        {i: row[keep].tolist() for step in range(s.batches_per_epoch)
         for batch in [s.batch(step)] for i, row, keep in zip(batch.index.tolist(), batch.source, batch.keep, strict=True)}
        for s in (a, b)
    ]  # fmt: skip
    assert rows[0] == rows[1]  # another batch size, the same samples
    assert all(len(row) <= 40 for row in rows[0].values())  # a sample beyond max_tokens is not used
    changed = sum(row[:-1] != made.source[i] for i, row in rows[0].items())
    assert changed > 100
    assert torch.equal(a.batch(3).source, make(256).batch(3).source)
    later = a.batch(a.batches_per_epoch)
    assert any(
        row[keep].tolist() != rows[0][i]
        for i, row, keep in zip(later.index.tolist(), later.source, later.keep, strict=True)
    )


def test_what_cannot_be_encoded_is_counted_or_stops():
    def run(texts, **options):
        report = SkipReport()
        pairs = []
        for i, text in enumerate(texts, 1):
            report.use()
            pairs.append(Pair(text, "x", f"f:{i}"))
        return encode(pairs, Words(), Words(), report, **options), report

    made, report = run(["ab", "poison", "---", "abcdef", "abcde"], max_tokens=6)
    assert made.source[0] == [100, 101] and [p.source for p in made.pairs] == ["ab", "abcde"]
    wanted = [("f", 2, "not encodable"), ("f", 3, "no tokens"), ("f", 4, "too many tokens")]
    assert list(report.places()) == wanted and report.read == report.used + 3 == 5
    with pytest.raises(DataError, match="failed on 3 of 4") as e:
        run(["poison", "a", "poison", "poison"])
    assert e.value.place == "f:1"
    with pytest.raises(DataError, match="too many tokens"):
        run(["abc"], max_tokens=2)


def test_rows_keep_what_they_were_given():
    rows = [[random.Random(i).randrange(10**6) for _ in range(i % 5)] for i in range(50)]
    made = Rows.of(rows)
    assert [made[i] for i in range(len(made))] == rows and made.lengths.tolist() == [
        len(r) for r in rows
    ]
    assert len(Rows.of([])) == 0
