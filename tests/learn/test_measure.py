"""Laws of evaluation: sacreBLEU's numbers exactly, intervals that cover, nothing dropped."""

import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qkv.errors import ConfigError, DataError, MissingError
from qkv.learn import measure
from qkv.learn.sums import measured

sacrebleu = pytest.importorskip("sacrebleu")

WORDS = (
    "the a cat dog sat ran on under mat log Red blue house , . ! 커피 한잔 어때 집에 갑니다".split()
)


def corpus(n: int, noise: float = 0.3, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    refs = [[rng.choice(WORDS) for _ in range(rng.randint(1, 15))] for _ in range(n)]
    hyps = [[rng.choice(WORDS) if rng.random() < noise else w for w in r] for r in refs]
    return [" ".join(h) for h in hyps], [" ".join(r) for r in refs]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "char", "none", "intl"])
def test_scores_equal_sacrebleu(tokenize, lowercase):
    hyps, refs = corpus(60)
    made = measure.translation_scores(hyps, refs, measure.METRICS, tokenize, lowercase)
    theirs = {
        "bleu": sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase),
        "chrf": sacrebleu.CHRF(lowercase=lowercase),
        "chrf++": sacrebleu.CHRF(lowercase=lowercase, word_order=2),
        "ter": sacrebleu.TER(),
    }
    for name, metric in theirs.items():
        score = metric.corpus_score(hyps, [refs])
        assert made[name].value == score.score  # the same sums, the same formula: no tolerance
        assert made[name].name == score.name
        assert made[name].signature == str(metric.get_signature())
    assert made["bleu"].value > 5


def test_several_references_equal_sacrebleu_even_when_their_number_varies():
    hyps, refs = corpus(40)
    other = corpus(40, seed=5)[1]
    rows = [[r] if i % 3 else [r, o] for i, (r, o) in enumerate(zip(refs, other, strict=True))]
    streams = [refs, [None if i % 3 else o for i, o in enumerate(other)]]
    made = measure.translation_scores(hyps, rows, ("bleu", "chrf", "ter"))
    assert made["bleu"].value == sacrebleu.BLEU().corpus_score(hyps, streams).score
    assert made["chrf"].value == sacrebleu.CHRF().corpus_score(hyps, streams).score
    # halves of reference lengths are exact in binary
    assert made["ter"].value == sacrebleu.TER().corpus_score(hyps, streams).score
    assert "nrefs:var" in made["bleu"].signature


@pytest.mark.parametrize("metric", ["bleu", "chrf", "chrf++", "ter", "exact"])
def test_a_resample_equals_scoring_the_drawn_sentences_one_by_one(metric, monkeypatch):
    hyps, refs = corpus(25)
    made = measured(hyps, refs, metric, "13a", False)
    fast = made.resampled(7, seed=3)
    drawn = np.random.Generator(np.random.PCG64(3)).integers(0, 25, size=(7, 25))
    slow = {
        "bleu": lambda h, r: sacrebleu.corpus_bleu(h, [r]).score,
        "chrf": lambda h, r: sacrebleu.corpus_chrf(h, [r]).score,
        "chrf++": lambda h, r: sacrebleu.corpus_chrf(h, [r], word_order=2).score,
        "ter": lambda h, r: sacrebleu.corpus_ter(h, [r]).score,
        "exact": lambda h, r: 100 * sum(a == b for a, b in zip(h, r, strict=True)) / len(h),
    }[metric]
    by_hand = [slow([hyps[i] for i in row], [refs[i] for i in row]) for row in drawn]
    assert fast.tolist() == by_hand
    assert len(set(by_hand)) > 1
    monkeypatch.setattr("qkv.learn.sums.BLOCK", 50)  # two resamples at a time: the same draws
    assert made.resampled(7, seed=3).tolist() == by_hand


def test_an_interval_covers_its_value_and_narrows_with_more_sentences():
    few = measure.bootstrap(*corpus(50), resamples=300)
    many = measure.bootstrap(*corpus(800), resamples=300)
    for x in (few, many):
        assert x.lower < x.value < x.upper
    assert many.upper - many.lower < 0.5 * (few.upper - few.lower)  # about a quarter
    assert few == measure.bootstrap(*corpus(50), resamples=300)
    assert few != measure.bootstrap(*corpus(50), resamples=300, seed=1)


def test_paired_bootstrap_tells_better_from_equal():
    good, refs = corpus(200, 0.2)
    bad = corpus(200, 0.4)[0]
    same = measure.paired_bootstrap(good, list(good), refs, resamples=200)
    assert (same.difference, same.lower, same.upper, same.p) == (0, 0, 0, 1)
    apart = measure.paired_bootstrap(good, bad, refs, resamples=200)
    assert 0 < apart.lower < apart.difference < apart.upper
    assert apart.p == 1 / 201
    back = measure.paired_bootstrap(bad, good, refs, resamples=200)
    assert (back.difference, back.p) == (-apart.difference, apart.p)


def test_every_sentence_falls_in_exactly_one_length_bin():
    hyps, refs = corpus(120)
    lengths = [len(r.split()) for r in refs]
    for edges in (1, 4, 50, (5,), (3, 8, 12), (-2, 100), ()):
        bins = measure.by_length(hyps, refs, lengths, edges, "chrf", resamples=20)
        assert sum(b.count for b in bins) == 120
        for b in bins:
            inside = [i for i, n in enumerate(lengths) if b.low <= n <= b.high]
            assert b.count == len(inside)
            score = sacrebleu.corpus_chrf([hyps[i] for i in inside], [[refs[i] for i in inside]])
            assert b.value == score.score
            assert b.lower <= b.upper
        assert all(x.high < y.low for x, y in zip(bins, bins[1:], strict=False))
    assert len(measure.by_length(hyps, refs, lengths, 4, "exact", resamples=5)) == 4


def test_a_bin_does_not_depend_on_the_other_bins():
    hyps, refs = corpus(90)
    lengths = [len(r.split()) for r in refs]
    last = measure.by_length(hyps, refs, lengths, (4, 9), resamples=50)[-1]
    long = [i for i, n in enumerate(lengths) if n >= 9]
    alone = [[x[i] for i in long] for x in (hyps, refs, lengths)]
    assert measure.by_length(*alone, (9,), resamples=50) == [last]


def test_the_sample_table_shows_the_best_and_the_worst():
    hyps, refs = corpus(30)
    hyps[7], hyps[11] = refs[7], "zzz"
    rows = measure.sample_table([f"s{i}" for i in range(30)], refs, hyps, n=3)
    assert [r.kind for r in rows] == ["random"] * 3 + ["best"] * 3 + ["worst"] * 3
    best, worst = [[r for r in rows if r.kind == k] for k in ("best", "worst")]
    assert best[0].chrf == 100 and worst[0].index == 11 and worst[0].chrf < 1
    assert worst[-1].chrf < best[-1].chrf
    for r in rows:
        sentence = sacrebleu.corpus_chrf([r.hypothesis], [[r.reference]]).score
        assert (r.source, r.reference, r.chrf) == (f"s{r.index}", refs[r.index], sentence)
    assert rows == measure.sample_table([f"s{i}" for i in range(30)], refs, hyps, n=3)
    tiny = measure.sample_table(["s"], ["a b"], ["a c"], n=5)
    assert [(r.kind, r.index) for r in tiny] == [("random", 0), ("best", 0)]


def test_exact_match_and_perplexity():
    assert measure.exact_match(["a b ", "A", "x"], ["a b", "a", ["y", "x"]]) == pytest.approx(
        200 / 3
    )
    assert measure.exact_match(["A"], ["a"], lowercase=True) == 100
    assert measure.perplexity(10 * math.log(7), 10) == pytest.approx(7)
    assert measure.perplexity(1e6, 10) == math.inf
    assert math.isnan(measure.perplexity(math.nan, 10))
    with pytest.raises(DataError):
        measure.perplexity(0.0, 0)


@pytest.mark.parametrize(
    ("hyps", "refs", "code"),
    [
        ([], [], "QKV-032"),
        (["a"], [], "QKV-031"),
        (["a", "b"], [["a", "b"]], "QKV-031"),  # sacreBLEU's transposed references
        (["a"], [[]], "QKV-032"),
        (["a"], [None], "QKV-033"),
        ([3], ["a"], "QKV-033"),
        ("a", ["a"], "QKV-033"),
    ],
)
def test_unusable_lists_are_data_errors(hyps, refs, code):
    with pytest.raises(DataError) as e:
        measure.translation_scores(hyps, refs)
    assert e.value.code == code


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="did you mean 'bleu'"):
        measure.translation_scores(["a"], ["a"], ["blue"])
    with pytest.raises(ConfigError, match="13b"):
        measure.translation_scores(["a"], ["a"], tokenize="13b")
    with pytest.raises(ConfigError, match="resamples"):
        measure.bootstrap(["a"], ["a"], resamples=0)
    with pytest.raises(ConfigError, match="rise"):
        measure.by_length(["a"], ["a"], [1], (5, 3))
    with pytest.raises(ConfigError, match="bins"):
        measure.by_length(["a"], ["a"], [1], 0)
    with pytest.raises(DataError, match="-1"):
        measure.by_length(["a"], ["a"], [-1])
    with pytest.raises(DataError, match="2 lengths"):
        measure.by_length(["a"], ["a"], [1, 2])


def test_a_missing_tokeniser_is_named_and_nothing_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(MissingError, match="flores200"):
        measure.translation_scores(["a"], ["a"], tokenize="flores200")
    assert not list(tmp_path.iterdir())
    import sacrebleu.tokenizers.tokenizer_ko_mecab as ko

    monkeypatch.setattr(ko, "MeCab", None)
    with pytest.raises(MissingError, match=r"sacrebleu\[ko\]") as e:
        measure.translation_scores(["a"], ["a"], tokenize="ko-mecab")
    assert e.value.code == "QKV-022"


def test_measuring_needs_no_torch():
    code = "import sys, qkv.learn.measure; sys.exit('torch' in sys.modules or 'sacrebleu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("page", ["evaluation", "tracking"])
def test_the_examples_of_the_page_run(page, tmp_path):
    if page == "tracking":
        pytest.importorskip("tensorboard", reason="tensorboard is not installed (qkv[track])")
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    for command, wanted in re.findall(r"\$ (.*)\n(.*)\n", text):
        shown = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert shown.stdout == wanted + "\n"
