"""Sub-word sampling: seeded, faithful to the text, encode at 0, and distributed as the papers say."""

import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.errors import TokenizerError
from qkv.text import TextConfig, Tokenizer, train

DRAWS = 8000


def pairs_of(tk: Tokenizer) -> dict[tuple[str, str], int]:
    return {(a, b): r for r, (a, b) in enumerate(tk._model["merges"])}


def test_alpha_zero_is_encode(tk: Tokenizer, lines: list[str]) -> None:
    for x in lines:
        assert tk.sample(x, random.Random(1), 0.0) == tk.encode(x).ids


def test_kinds_without_sampling_encode(tk: Tokenizer, lines: list[str]) -> None:
    if tk.kind not in ("unigram", "bpe"):
        assert all(tk.sample(x, random.Random(1), 0.7) == tk.encode(x).ids for x in lines)


def test_bpe_samples_tend_to_encode_as_alpha_tends_to_zero(
    tokenizers: dict[str, Tokenizer], lines: list[str]
) -> None:
    for tk in (tokenizers["bpe"], tokenizers["bpe-lower-jamo"]):
        for x in [*lines, "새로운 낱말 <eos> 漢字 😀", "a" * 300, "", " ", "  a  "]:
            assert tk.sample(x, random.Random(2), 1e-12) == tk.encode(x).ids


def test_unigram_samples_tend_to_the_best_cut_as_alpha_tends_to_zero(
    tokenizers: dict[str, Tokenizer], lines: list[str]
) -> None:
    for name in ("unigram", "unigram-jamo"):
        tk = tokenizers[name]
        score = [s for _, s in tk._model["vocab"]]
        differ = 0
        for x in [*lines, "새로운 낱말 <eos> 漢字 😀", "a" * 300, "", " ", "  a  "]:
            ours, best = tk.sample(x, random.Random(2), 1e-12), tk.encode(x).ids
            assert math.isclose(sum(score[i] for i in ours), sum(score[i] for i in best))
            differ += (
                ours != best
            )  # of several best cuts ("a" + "aa" = "aa" + "a") each has its chance
        assert differ < len(lines) // 2


@settings(max_examples=150, deadline=None)
@given(
    x=st.one_of(st.text(max_size=20), st.sampled_from(["커피 한잔 <eos>", "<0x41> ▁ coffee\n"])),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_sample_decodes_to_the_same_text(
    tokenizers: dict[str, Tokenizer], x: str, alpha: float, seed: int
) -> None:
    for name in ("unigram", "bpe", "unigram-jamo", "bpe-lower-jamo"):
        tk = tokenizers[name]
        ids = tk.sample(x, random.Random(seed), alpha)
        assert tk.decode(ids) == tk.normal(x)
        assert not set(ids) & {0, 1, 2, 3}


def test_a_sample_is_a_function_of_text_alpha_and_rng(
    tokenizers: dict[str, Tokenizer], lines: list[str]
) -> None:
    for name in ("unigram", "bpe"):
        warm = tokenizers[name]
        fresh = Tokenizer.from_files(warm.files())
        for x in lines[::-1]:
            warm.sample(x, random.Random(0), 0.9)  # other words and another alpha in the caches
        a, b = random.Random(5), random.Random(5)
        random.seed(1)
        first = [warm.sample(x, a, 0.3) for x in lines]
        random.seed(2)
        assert first == [fresh.sample(x, b, 0.3) for x in lines]
        assert a.getstate() == b.getstate()
        assert first != [warm.sample(x, a, 0.3) for x in lines]


def same_law(found: Counter[tuple[str, ...]], law: dict[tuple[str, ...], float]) -> None:
    """Every frequency within 5 standard deviations of its probability."""
    assert math.isclose(sum(law.values()), 1, rel_tol=1e-9) and set(found) <= set(law)
    for cut, p in law.items():
        sd = math.sqrt(p * (1 - p) / DRAWS)
        assert abs(found[cut] / DRAWS - p) <= 5 * sd + 1e-9, cut


def drop(
    state: tuple[str, ...], ranks: dict[tuple[str, str], int], alpha: float
) -> dict[tuple[str, ...], float]:
    """The slow twin: the law of BPE-dropout by trying every subset of dropped merges at every step."""
    found = [(ranks[p], at) for at, p in enumerate(pairwise(state)) if p in ranks]
    law: Counter[tuple[str, ...]] = Counter()
    for mask in range(1 << len(found)):
        left = [f for i, f in enumerate(found) if mask >> i & 1]
        p = (1 - alpha) ** len(left) * alpha ** (len(found) - len(left))
        if not left:
            law[state] += p
            continue
        _, at = min(left)
        merged = (*state[:at], state[at] + state[at + 1], *state[at + 2 :])
        for cut, q in drop(merged, ranks, alpha).items():
            law[cut] += p * q
    return dict(law)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_bpe_dropout_follows_its_law(tokenizers: dict[str, Tokenizer], alpha: float) -> None:
    tk, rng = tokenizers["bpe"], random.Random(3)
    found = Counter(tuple(tk.tokens(tk.sample("coffee", rng, alpha))) for _ in range(DRAWS))
    law = drop(tuple(" coffee"), pairs_of(tk), alpha)
    assert len(law) > 5 or alpha == 1
    same_law(found, {tuple(p.replace(" ", "▁") for p in cut): q for cut, q in law.items()})


def cuts(word: str, scores: dict[str, float]) -> list[tuple[tuple[str, ...], float]]:
    """The slow twin: every cut of a word into pieces, with its log-probability."""
    if not word:
        return [((), 0.0)]
    ends = [e for e in range(1, len(word) + 1) if word[:e] in scores]
    return [
        ((word[:e], *rest), scores[word[:e]] + s)
        for e in ends
        for rest, s in cuts(word[e:], scores)
    ]


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8, 1.0])
def test_unigram_sampling_follows_its_law(tokenizers: dict[str, Tokenizer], alpha: float) -> None:
    tk, rng = tokenizers["unigram"], random.Random(4)
    found = Counter(tuple(tk.tokens(tk.sample("Garden", rng, alpha))) for _ in range(DRAWS))
    every = cuts(" Garden", dict(tk._model["vocab"]))
    weight = {cut: math.exp((1 / alpha - 1) * s) for cut, s in every}
    total = sum(weight.values())
    assert len(weight) > 3
    same_law(found, {tuple(p.replace(" ", "▁") for p in c): w / total for c, w in weight.items()})


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf])
def test_alpha_outside_its_range_is_refused(tokenizers: dict[str, Tokenizer], alpha: float) -> None:
    with pytest.raises(TokenizerError, match="alpha"):
        tokenizers["bpe"].sample("a", random.Random(0), alpha)


def test_long_words_are_sampled_in_linear_work() -> None:
    # counted in draws: a unigram word takes one for each piece, a BPE word of more than 64 symbols none
    class Counting(random.Random):
        n = 0

        def random(self) -> float:
            self.n += 1
            return super().random()

    lines = ["aaaa aaab abab"] * 20
    for kind in ("unigram", "bpe"):
        tk = train(lines, TextConfig(kind=kind, vocab_size=290))
        for n in (1000, 20000):
            rng = Counting(1)
            assert tk.decode(tk.sample("ab" * n, rng, 0.5)) == "ab" * n
            assert rng.n <= 2 * n + 1
