"""Laws of the engine: request order, one answer per source whatever the batches, limits named, forced scores."""

import random
from dataclasses import replace

import pytest
import torch
from decode_fakes import EOS, START, SumNet, TableNet, batch_of, plain

from qkv.decode.engine import NOTHING, Engine, Forced, force, plan
from qkv.decode.search import SearchConfig, search
from qkv.errors import DataError, QkvError
from qkv.shapes import Batch, pad


def sentences(n: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(3, 60) for _ in range(rng.randrange(1, 40))] for _ in range(n)]


def test_answers_come_in_request_order_and_do_not_depend_on_the_batches():
    net, asked = SumNet(V=60, seed=2), sentences(60)
    config = SearchConfig(beam=3, nbest=2, max_new_tokens=8)
    alone = [plain(search(net, batch_of([s]), config)[0]) for s in asked]
    for tokens in (16, 300, 4096):
        got = Engine(net, config, batch_tokens=tokens)(asked)
        assert [plain(g) for g in got] == alone


def test_batches_hold_every_source_once_within_their_budget():
    rng = random.Random(1)
    for _ in range(300):
        sizes = [rng.choice([0, rng.randrange(1, 80)]) for _ in range(rng.randrange(0, 40))]
        budget = rng.choice([1, 64, 200, 1000])
        made = plan(sizes, budget)
        assert sorted(i for g in made for i in g) == [i for i, s in enumerate(sizes) if s]
        for group in made:
            width = -(-max(sizes[i] for i in group) // 16) * 16
            assert len(group) == 1 or len(group) * width <= budget
        joined = [sizes[i] for g in made for i in g]
        assert joined == sorted(joined, reverse=True)


def test_an_empty_source_gets_eos_alone_and_nothing_else_is_asked():
    net = TableNet(torch.zeros(97, 6))
    engine = Engine(net)
    assert engine([[], []]) == [[NOTHING], [NOTHING]] and net.rows == []
    assert engine([]) == []
    got = engine([[3], [], [4]])
    assert got[1] == [NOTHING] and got[0] and got[2]
    sampled = Engine(net, SearchConfig(temperature=1.0, nbest=3))([[]])
    assert sampled == [[NOTHING] * 3]


def test_a_source_that_is_too_long_is_named_before_anything_is_computed():
    net = TableNet(torch.zeros(97, 6), max_positions=20)
    with pytest.raises(DataError, match=r"QKV-037.*source 1: 21 tokens.*20"):
        Engine(net)([[3], [3] * 21, [3] * 22])
    assert net.rows == []
    assert len(Engine(net)([[3] * 20])) == 1
    assert len(Engine(net, max_source=21)([[3] * 21])) == 1
    with pytest.raises(DataError, match="target 0: 21 tokens"):
        Engine(holding(20)).force([[3]], [[3] * 20])


def holding(positions: int) -> SumNet:
    net = SumNet(V=60)
    net.max_positions = positions
    return net


def test_an_error_names_the_source_by_its_place_in_the_request():
    made = torch.zeros(97, 6)
    net = TableNet(made)
    asked = [[3], [4, 4, 4], [5, 5]]
    hash = (net.start(batch_of([asked[2]])).hash * 31 + START * 7 + 1) % 97
    made[hash] = float("nan")
    with pytest.raises(QkvError, match="source 2"):
        Engine(net)(asked)


def test_the_forced_score_of_an_answer_is_its_score():
    net, asked = SumNet(V=60, seed=4), sentences(40, seed=4)
    for config in (SearchConfig(), SearchConfig(beam=4)):
        engine = Engine(net, config)
        got = [answer[0] for answer in engine(asked)]
        forced = engine.force(asked, [h.ids for h in got])
        assert any(h.finished for h in got)
        for h, f in zip(got, forced, strict=True):
            assert len(f.token_scores) == len(h.ids) + 1
            n = len(h.token_scores)  # 1e-5: running sum against cumulated sum, float32
            assert f.token_scores[:n] == pytest.approx(h.token_scores, abs=1e-4)


def test_forced_scores_are_log_softmax_at_the_target_and_bitwise_alone_or_together():
    net, asked, given = SumNet(V=60, seed=5), sentences(30, 5), sentences(30, 6)
    together = Engine(net).force(asked, given)
    assert together == Engine(net, batch_tokens=100).force(asked, given)
    for s, t, f in zip(asked, given, together, strict=True):
        assert Engine(net).force([s], [t]) == [f]
        logits, state, last = None, net.start(batch_of([s])), START
        for i, score in zip([*t, EOS], f.token_scores, strict=True):
            logits, state = net.step(torch.tensor([last]), state)
            assert score == pytest.approx(torch.log_softmax(logits, -1)[0, i].item(), abs=1e-4)
            last = i
        total = 0.0
        for score in f.token_scores:
            total += score
        assert f.score == total


def test_forcing_refuses_what_it_cannot_score():
    net = SumNet(V=60)
    with pytest.raises(DataError, match="2 sources but 1 targets"):
        Engine(net).force([[3], [4]], [[3]])
    with pytest.raises(DataError, match="source 1"):
        Engine(net).force([[3], []], [[3], [4]])
    with pytest.raises(DataError, match="needs targets"):
        force(net, batch_of([[3]]))
    with torch.no_grad():
        net.out[7] = float("nan")
    target, keep = pad([[5, EOS]], 0, 16)
    batch = replace(batch_of([[3]]), target=target, target_keep=keep)
    with pytest.raises(QkvError, match="QKV-075.*source 0"):
        force(net, batch)
    assert Engine(net).force([], []) == [] and Forced(0.0, ()) == Forced(0.0, ())


def test_sources_are_padded_to_sixteens_but_never_beyond_the_model():
    seen = []

    class Watching(TableNet):
        def start(self, batch: Batch):
            seen.append(tuple(batch.source.shape))
            return super().start(batch)

    net = Watching(torch.zeros(97, 6), max_positions=20)
    Engine(net, SearchConfig(max_new_tokens=2))([[3] * 17, [3]])
    Engine(net, SearchConfig(max_new_tokens=2))([[3]])
    net.source_rows = 1  # what a net may declare whose encoder does not mind
    Engine(net, SearchConfig(max_new_tokens=2))([[3]])
    assert seen == [(16, 20), (16, 16), (1, 16)] and all(r == 16 for r in net.rows)
