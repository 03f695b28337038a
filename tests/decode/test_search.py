"""Laws of greedy and beam search (DESIGN laws 2 and 3, RELIABILITY D2 and D5)."""

import math
import random
from dataclasses import replace

import pytest
import torch
from decode_fakes import (
    EOS,
    PAD,
    START,
    LookingNet,
    SumNet,
    TableNet,
    batch_of,
    brute_force,
    oracle_beam,
    plain,
)

from qkv.decode.search import SearchConfig, length_penalty, search
from qkv.errors import ConfigError, QkvError
from qkv.look.record import record
from qkv.models import build, configure
from qkv.parts.attention import Attention
from qkv.shapes import Batch


def table(rng: torch.Generator, V: int, M: int = 97, kind: str = "plain") -> torch.Tensor:
    made = torch.randn(M, V, generator=rng) * 2
    made[:, EOS] += 0.5
    if kind == "ties":
        made = made.round()
    if kind == "holes":  # impossible tokens, and prefixes after which nothing is possible
        made[torch.rand(M, V, generator=rng) < 0.5] = -math.inf
    return made


def sources(rng: random.Random, n: int) -> list[list[int]]:
    return [[rng.randrange(3, 40) for _ in range(rng.randrange(1, 9))] for _ in range(n)]


@pytest.mark.parametrize("kind", ["plain", "ties", "holes"])
def test_beam_equals_its_slow_twin(kind):
    """1,200 cases of each kind: ids, scores, order and ends identical; the twin never stops early."""
    rng, generator = random.Random(kind), torch.Generator().manual_seed(len(kind))
    cases = unfinished = 0
    for _ in range(75):
        beam = rng.randrange(1, 6)
        config = SearchConfig(
            beam=beam,
            nbest=rng.randrange(1, beam + 1),
            max_new_tokens=rng.randrange(1, 9),
            alpha=rng.choice([0.0, 0.6, 1.0, 2.0]),
        )
        config = replace(config, min_new_tokens=rng.randrange(0, min(3, config.max_new_tokens) + 1))
        net = TableNet(table(generator, V=rng.randrange(3, 9), kind=kind))
        asked = sources(rng, 16)
        for source, got in zip(asked, search(net, batch_of(asked), config), strict=True):
            assert got and plain(got) == oracle_beam(net, source, config, config.max_new_tokens)
            cases += 1
            unfinished += not got[0].finished
    assert cases == 1200 and 0 < unfinished < 1000


def test_greedy_is_a_beam_of_one():
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for kind in ["plain", "ties", "holes"] * 8:
        net, asked = TableNet(table(generator, V=7, kind=kind)), sources(rng, 40)
        config = SearchConfig(max_new_tokens=rng.randrange(1, 12), alpha=rng.choice([0.0, 1.0]))
        for source, got in zip(asked, search(net, batch_of(asked), config), strict=True):
            assert plain(got) == oracle_beam(net, source, config, config.max_new_tokens)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_wide_beam_equals_brute_force(alpha):
    V, limit = 6, 4  # 3 words: 1 + 3 + 9 + 27 = 40 sequences that end
    net = TableNet(table(torch.Generator().manual_seed(3), V))
    asked = sources(random.Random(3), 20)
    config = SearchConfig(beam=200, nbest=40, max_new_tokens=limit, alpha=alpha)
    for source, got in zip(asked, search(net, batch_of(asked), config), strict=True):
        best = brute_force(net, source, alpha, limit, V)
        assert [(h.ids, h.score) for h in got] == [(ids, score) for _, ids, score in best]
        assert len(got) == 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(max_new_tokens=12),
        SearchConfig(beam=4, nbest=3),
        SearchConfig(beam=5, max_new_tokens=9, alpha=0.6),
        SearchConfig(temperature=1.0, nbest=2, top_p=0.9, max_new_tokens=12),
    ],
    ids=["greedy", "beam4", "beam5", "sample"],
)
def test_an_answer_is_bitwise_its_own_in_any_batch_and_order(config, dtype):
    net, rng = SumNet(V=120, seed=1, dtype=dtype), random.Random(1)
    asked = sources(rng, 70)
    alone = [plain(search(net, batch_of([s]), config)[0]) for s in asked]
    assert len({str(a) for a in alone}) > 30
    for size in (70, 33, 5):
        order = rng.sample(range(70), size)
        # a neighbour of 40 tokens changes the padded length
        rows = [asked[i] for i in order] + [[rng.randrange(3, 120) for _ in range(40)]]
        got = search(net, batch_of(rows), config)
        assert [plain(g) for g in got[:size]] == [alone[i] for i in order]


def test_steps_get_rows_in_sixteens_and_fewer_as_sources_finish():
    net = TableNet(table(torch.Generator().manual_seed(5), 9))
    asked = sources(random.Random(5), 50)
    for config in (SearchConfig(max_new_tokens=30), SearchConfig(beam=4, max_new_tokens=30)):
        net.rows.clear()
        search(net, batch_of(asked), config)
        assert all(rows % 16 == 0 for rows in net.rows)
        assert net.rows[0] == 64 and net.rows[-1] == 16


def test_the_search_stops_as_soon_as_no_answer_can_change():
    """One sure word, then a sure end: a beam that ran to its limit would take 50 steps."""
    made = torch.full((97, 6), -20.0)
    made[:, EOS] = 0.0
    net = TableNet(made)
    search(net, batch_of([[3, 4]]), SearchConfig(beam=4, max_new_tokens=50))
    assert len(net.rows) == 1


def test_a_limit_comes_from_the_real_length_and_never_passes_the_model():
    made = torch.full((97, 6), 0.0)
    made[:, EOS] = -math.inf
    asked = [[3], [3] * 5, [3] * 30]
    for config in (SearchConfig(), SearchConfig(beam=3)):
        got = search(TableNet(made), batch_of(asked), config)
        assert [len(g[0].ids) for g in got] == [12, 20, 70]
        assert not any(g[0].finished for g in got)
        got = search(TableNet(made, max_positions=40), batch_of(asked), config)
        assert [len(g[0].ids) for g in got] == [12, 20, 40]
    exact = SearchConfig(max_new_tokens=40)
    assert len(search(TableNet(made, 40), batch_of([[3]]), exact)[0][0].ids) == 40
    with pytest.raises(ConfigError, match="41 .*40"):
        search(TableNet(made, 40), batch_of([[3]]), replace(exact, max_new_tokens=41))


def test_banned_ids_never_come():
    made = torch.randn(97, 8, generator=torch.Generator().manual_seed(2))
    made[:, [PAD, START, 5]] += 50.0
    for config in (
        SearchConfig(max_new_tokens=9),
        SearchConfig(beam=3, nbest=3, max_new_tokens=9),
        SearchConfig(temperature=2.0, max_new_tokens=9),
    ):
        got = search(TableNet(made), batch_of(sources(random.Random(2), 30)), config, banned=(5,))
        seen = {i for g in got for h in g for i in h.ids}
        assert seen == {3, 4, 6, 7}


CONFIGS = [
    SearchConfig(max_new_tokens=6),
    SearchConfig(beam=3, max_new_tokens=6),
    SearchConfig(temperature=1.0, max_new_tokens=6),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["greedy", "beam", "sample"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error_that_names_the_row(config, bad):
    made = torch.zeros(97, 6)
    net = TableNet(made)
    batch = batch_of([[3], [4], [5]])
    hashes = (net.start(batch).hash * 31 + START * 7 + 1) % 97
    made[hashes[1], 4] = bad
    with pytest.raises(QkvError, match=r"QKV-075.*source 1: .*position 0.*row 1"):
        search(net, batch, config)
    with pytest.raises(QkvError, match="source 12"):
        search(net, replace(batch, index=torch.tensor([7, 12, 9])), config)


@pytest.mark.parametrize("config", CONFIGS, ids=["greedy", "beam", "sample"])
def test_where_nothing_is_possible_the_answer_ends_there(config):
    nothing = torch.full((97, 6), -math.inf)
    got = search(TableNet(nothing), batch_of([[3], [4]]), config)
    assert [plain(g) for g in got] == [[((), 0.0, False, ())]] * 2


def test_coverage_ranks_by_attention_and_equals_its_slow_twin():
    rng, generator = random.Random(8), torch.Generator().manual_seed(8)
    changed = 0
    for _ in range(10):
        net, asked = LookingNet(table(generator, 8)), sources(rng, 16)
        config = SearchConfig(beam=4, nbest=3, max_new_tokens=7, coverage=0.3)
        without = search(net, batch_of(asked), replace(config, coverage=0.0))
        got = search(net, batch_of(asked), config)
        for source, g, w in zip(asked, got, without, strict=True):
            assert plain(g) == oracle_beam(net, source, config, 7)
            changed += plain(g) != plain(w)
    assert changed > 20
    with pytest.raises(ConfigError, match="coverage"):
        search(TableNet(table(generator, 8)), batch_of([[3]]), config)


@pytest.mark.parametrize("family", ["transformer", "rnn"])
def test_coverage_watches_the_last_cross_attention_of_our_nets(family):
    """The penalties from the maps of a teacher-forced pass: float64, so 1e-9 of a sum of a few logarithms."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "vocab_size": 12}
    sizes |= {"n_heads": 2, "d_ff": 16} if family == "transformer" else {}
    net = build(configure({"family": family, **sizes})).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)  # sharper, so that answers differ in where they look
    config, changed = SearchConfig(beam=4, nbest=4, max_new_tokens=5, coverage=2.0), 0
    for ids in sources(random.Random(3), 12):
        source = torch.tensor([[i % 9 + 3 for i in ids]])
        batch = Batch(source, torch.ones_like(source, dtype=torch.bool))
        (found,), ranked = search(net, batch, config), []
        for h in found:
            target = torch.tensor([[*h.ids, 2] if h.finished else list(h.ids)])
            with torch.no_grad(), record(net) as maps:
                net.logits(
                    Batch(source, batch.keep, target, torch.ones_like(target, dtype=torch.bool))
                )
            cross = [m for name, m in maps.items() if name.endswith("cross")][-1]
            seen = cross.mean(1)[0].sum(0)  # (1, H, T, S) -> (S)
            penalty = 2.0 * float(seen.clamp(1e-9, 1.0).log().sum())
            ranked.append(h.score / length_penalty(target.shape[1], 1.0) + penalty)
        for group in (True, False):  # unfinished ones stand behind the finished
            own = [r for r, h in zip(ranked, found, strict=True) if h.finished == group]
            assert all(a >= b - 1e-9 for a, b in zip(own, own[1:], strict=False))
        (without,) = search(net, batch, replace(config, coverage=0.0))
        changed += [h.ids for h in found] != [h.ids for h in without]
    assert changed > 3
    assert all(m.probe is None for m in net.modules() if isinstance(m, Attention))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(beam=0), dict(beam=1.5), dict(beam=True), dict(beam=5000), dict(nbest=0), dict(nbest=2),
        dict(max_new_tokens=0), dict(min_new_tokens=-1), dict(min_new_tokens=4, max_new_tokens=3),
        dict(alpha=math.nan), dict(alpha=-1.0), dict(alpha=11.0), dict(coverage=math.inf),
        dict(temperature=math.nan), dict(temperature=-0.5), dict(temperature=math.inf),
        dict(temperature=1.0, top_k=0), dict(temperature=1.0, top_p=0.0),
        dict(temperature=1.0, top_p=1.5), dict(temperature=1.0, top_p=math.nan),
        dict(temperature=1.0, beam=2), dict(top_k=5), dict(top_p=0.5), dict(seed=-1),
        dict(seed=1 << 64), dict(temperature=1.0, coverage=0.1), dict(alpha="1"),
        dict(temperature=1.0, nbest=5000),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_setting_is_refused_with_its_name_and_a_fix(wrong):
    with pytest.raises(ConfigError) as caught:
        SearchConfig(**wrong)
    assert any(name in str(caught.value) for name in wrong) and caught.value.fix


def test_length_penalty_is_equation_14():
    assert length_penalty(1, 1.0) == 1.0 and length_penalty(7, 1.0) == 2.0
    assert length_penalty(7, 2.0) == 4.0 and length_penalty(99, 0.0) == 1.0


def test_no_sources_no_answers():
    assert search(TableNet(torch.zeros(97, 6)), batch_of([[3]]).to("cpu"), SearchConfig())
    empty = batch_of([[3]])
    empty = replace(empty, source=empty.source[:0], keep=empty.keep[:0])
    assert search(TableNet(torch.zeros(97, 6)), empty) == []
