"""Laws of sampling: the filters equal their slow twin, and a text depends on its sentence and the seed alone."""

import math
import random

import numpy as np
import pytest
import torch
from decode_fakes import SumNet, TableNet, batch_of, plain

from qkv.decode.rows import top
from qkv.decode.sample import draw, kept, keys, uniforms
from qkv.decode.search import SearchConfig, search


def slow_kept(logp: list[float], temperature: float, k: int | None, p: float | None) -> dict:
    """The definition: id -> weight, by temperature, then top-k, then top-p of what is left."""
    peak = max(logp)
    weight = [math.exp((x - peak) / temperature) for x in logp]
    order = sorted(range(len(logp)), key=lambda i: (-logp[i], i))[:k]
    if p is not None and p < 1:
        total, share, chosen = math.fsum(weight[i] for i in order), 0.0, []
        for i in order:
            if share >= p * total:
                break
            chosen.append(i)
            share += weight[i]
        order = chosen
    return {i: weight[i] for i in sorted(order) if weight[i] > 0}


def case(rng: random.Random, V: int) -> torch.Tensor:
    values = [rng.gauss(0, 3) for _ in range(V)]
    if rng.random() < 0.3:
        values = [float(round(v)) for v in values]
    if rng.random() < 0.3:
        values = [v if rng.random() < 0.6 else -math.inf for v in values]
        values[rng.randrange(V)] = 0.0
    return torch.log_softmax(torch.tensor([values]), -1)


@pytest.mark.parametrize("use_k", [False, True])
@pytest.mark.parametrize("use_p", [False, True])
def test_filters_equal_their_slow_twin(use_k, use_p):
    rng = random.Random(f"{use_k}{use_p}")
    for _ in range(300):
        logp = case(rng, V := rng.choice([2, 5, 70, 1500]) if rng.random() < 0.2 else 9)
        k = rng.randrange(1, V + 3) if use_k else None
        p = rng.choice([1e-9, 0.1, 0.5, 0.9, 0.999, 1.0]) if use_p else None
        temperature = rng.choice([1e-300, 0.1, 1.0, 7.0, 1e300])
        config = SearchConfig(temperature=temperature, top_k=k, top_p=p)
        ids, weights = kept(logp, config)
        ids = torch.arange(V)[None] if ids is None else ids
        got = {i: w for i, w in zip(ids[0].tolist(), weights[0].tolist(), strict=True) if w > 0}
        want = slow_kept(logp[0].tolist(), temperature, k, p)
        assert got == pytest.approx(want, rel=1e-12) and got


def test_a_draw_is_the_inverse_of_the_cumulated_probability():
    rng = random.Random(4)
    for _ in range(300):
        logp = case(rng, 9)
        config = SearchConfig(temperature=rng.choice([0.5, 1.0, 3.0]), top_k=rng.choice([None, 4]))
        want = slow_kept(logp[0].tolist(), config.temperature, config.top_k, None)
        for u in (0.0, rng.random(), 1 - 2.0**-53):
            at, share, total = None, 0.0, sum(want.values())
            for i, w in want.items():
                share += w
                if at is None and share > min(u * total, math.nextafter(total, 0)):
                    at = i
            assert draw(logp, torch.tensor([u], dtype=torch.float64), config).item() == at


def test_top_k_of_everything_and_top_p_of_one_change_nothing():
    rng = random.Random(5)
    u = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    for _ in range(40):
        logp = case(rng, 30).expand(50, 30)
        free = draw(logp, u, SearchConfig(temperature=1.3))
        assert torch.equal(free, draw(logp, u, SearchConfig(temperature=1.3, top_k=30)))
        assert torch.equal(free, draw(logp, u, SearchConfig(temperature=1.3, top_p=1.0)))


def test_a_cold_sample_and_a_sample_of_one_candidate_are_greedy():
    net = TableNet(torch.randn(97, 8, generator=torch.Generator().manual_seed(1)))
    batch = batch_of([[i, i + 1] for i in range(3, 40)])
    greedy = [plain(g) for g in search(net, batch, SearchConfig(max_new_tokens=8))]
    for filters in (
        dict(temperature=1e-300),
        dict(temperature=2.0, top_k=1),
        dict(temperature=2.0, top_p=1e-9),
    ):
        got = search(net, batch, SearchConfig(max_new_tokens=8, **filters))
        assert [plain(g) for g in got] == greedy


def test_draws_follow_the_distribution():
    """20,000 draws of 5 tokens: each count within 5 standard deviations."""
    logp = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.07, 0.03]])).expand(20000, 5)
    n = np.arange(20000)
    u = uniforms(7, np.full(20000, 99, np.uint64), n, 3)
    counts = draw(logp, torch.from_numpy(u), SearchConfig(temperature=1.0)).bincount(minlength=5)
    for seen, p in zip(counts.tolist(), [0.5, 0.25, 0.15, 0.07, 0.03], strict=True):
        assert abs(seen - 20000 * p) < 5 * math.sqrt(20000 * p * (1 - p))


def test_uniform_numbers_are_even_and_every_part_of_the_key_counts():
    key = np.arange(4000, dtype=np.uint64)
    zero = np.zeros(4000, np.int64)
    base = uniforms(0, key, zero, 0)
    assert ((base >= 0) & (base < 1)).all() and len(set(base)) == 4000
    others = [uniforms(1, key, zero, 0), uniforms(0, key, zero + 1, 0), uniforms(0, key, zero, 1)]
    for u in (base, *others):
        counts = np.histogram(u, bins=20, range=(0, 1))[0]  # 200 each; 5 sigma is 69
        assert abs(counts - 200).max() < 69
    for u in others:
        assert abs(np.corrcoef(base, u)[0, 1]) < 5 / math.sqrt(4000)
        assert (u == base).sum() == 0


def test_a_sample_is_a_function_of_sentence_seed_and_number():
    net = SumNet(V=60, seed=3)
    batch = batch_of([[5, 6, 7], [8, 9], [5, 6, 7]])
    config = SearchConfig(temperature=1.5, nbest=4, max_new_tokens=12)
    one = [plain(g) for g in search(net, batch, config)]
    assert one == [plain(g) for g in search(net, batch, config)]
    assert one[0] == one[2] and len({str(h) for h in one[0]}) == 4
    other = SearchConfig(temperature=1.5, nbest=4, max_new_tokens=12, seed=1)
    assert plain(search(net, batch, other)[0]) != one[0]
    fewer = SearchConfig(temperature=1.5, nbest=2, max_new_tokens=12)
    assert plain(search(net, batch, fewer)[0]) == one[0][:2]


def test_padding_is_no_part_of_a_key():
    assert keys(batch_of([[5, 6]])) == keys(batch_of([[5, 6], [3] * 40]))[0]
    assert len(set(keys(batch_of([[5, 6], [6, 5], [5], [5, 6, 6]])))) == 4


def test_a_score_is_the_models_own_probability_whatever_the_filters():
    net, batch = SumNet(V=60, seed=3), batch_of([[5, 6, 7]])
    hot = SearchConfig(temperature=3.0, top_k=20, top_p=0.8, max_new_tokens=6)
    made = search(net, batch, hot)[0][0]
    state, last = net.start(batch), 1
    for i, score in zip((*made.ids, 2), made.token_scores, strict=False):
        logits, state = net.step(torch.tensor([last]), state)
        assert torch.log_softmax(logits, -1)[0, i].item() == pytest.approx(score, abs=1e-5)
        last = i


@pytest.mark.parametrize("V", [3, 40, 5000])
def test_the_best_k_are_a_stable_sort_also_where_values_are_equal(V):
    rng = torch.Generator().manual_seed(V)
    for step in (0.0, 0.5, 3.0):  # 0: no ties; then more and more
        for k in (1, 2, 7, V, V + 4):
            x = torch.randn(20, V, generator=rng)
            x = x if step == 0 else (x / step).round() * step
            x[torch.rand(20, V, generator=rng) < 0.1] = -math.inf
            values, ids = top(x, k)
            want = torch.sort(x, dim=-1, descending=True, stable=True)
            real = want.values[:, :k] > -math.inf  # which of the impossible ones come is left open
            assert torch.equal(values, want.values[:, :k])
            assert torch.equal(ids[real], want.indices[:, :k][real])
