"""How good a translation is: corpus metrics with their signature, intervals, curves over length, samples.

Metrics: bleu, chrf, chrf++, ter (lower is better) and exact (percent of sentences equal).  Scores and signatures
are sacreBLEU's, so they can be compared with published ones; `sums` says why resampling is cheap.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .sums import METRICS as METRICS
from .sums import TOKENIZERS as TOKENIZERS
from .sums import Floats, Measured, References, measured, same_length


@dataclass(frozen=True)
class Score:
    """A corpus score, 0 to 100 (ter may exceed it), and the signature under which it can be compared."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.2f}  ({self.signature})"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A corpus score with its 95 % percentile bootstrap interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class LengthBin:
    """The score of the sentences with low <= length <= high, with its 95 % interval."""

    low: int
    high: int
    count: int
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Difference:
    """System a minus system b with its 95 % interval; p: how often chance alone makes a difference as large."""

    a: float
    b: float
    difference: float
    lower: float
    upper: float
    p: float


@dataclass(frozen=True)
class SampleRow:
    kind: Literal["random", "best", "worst"]
    index: int
    source: str
    reference: str
    hypothesis: str
    chrf: float


def translation_scores(
    hypotheses: Sequence[str],
    references: References,
    metrics: Sequence[str] = ("bleu", "chrf", "ter"),
    tokenize: str = "13a",
    lowercase: bool = False,
) -> dict[str, Score]:
    """Corpus scores by metric name, equal to sacreBLEU's, each with its signature (Post 2018).

    `tokenize` concerns BLEU only; TER always ignores case, as sacreBLEU's does (`case:lc`).  Raises DataError on empty or unequal lists, ConfigError on an unknown metric or
    tokeniser, MissingError when a tokeniser's package or model is not on this machine."""
    made = {m: measured(hypotheses, references, m, tokenize, lowercase) for m in metrics}
    return {m: Score(x.name, x.score(), x.signature) for m, x in made.items()}


def exact_match(
    hypotheses: Sequence[str], references: References, lowercase: bool = False
) -> float:
    """Percent of sentences equal to a reference, outer white space aside."""
    return measured(hypotheses, references, "exact", "none", lowercase).score()


def perplexity(total_nll: float, tokens: int) -> float:
    """exp(total_nll / tokens), natural logarithm; inf where that overflows, nan stays nan."""
    if tokens <= 0:
        raise DataError(
            f"perplexity over {tokens} tokens", fix="give at least one token", code="QKV-032"
        )
    try:
        return math.exp(total_nll / tokens)
    except OverflowError:
        return math.inf


def bootstrap(
    hypotheses: Sequence[str],
    references: References,
    metric: str = "bleu",
    *,
    resamples: int = 1000,
    seed: int = 0,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> Interval:
    """The 95 % interval of one system's corpus score, by resampling sentences (Koehn 2004)."""
    made = measured(hypotheses, references, metric, tokenize, lowercase)
    lower, upper = _interval(made.resampled(resamples, seed))
    return Interval(made.score(), lower, upper)


def paired_bootstrap(
    hypotheses_a: Sequence[str],
    hypotheses_b: Sequence[str],
    references: References,
    metric: str = "bleu",
    *,
    resamples: int = 1000,
    seed: int = 0,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> Difference:
    """Is a better than b on the same sentences?  Both are scored on the same resamples (Koehn 2004).

    p = (1 + #{|d_r - mean d_r| >= |d|}) / (R + 1), two-sided (Riezler and Maxwell 2005); sacreBLEU's own
    looks at one side of the spread and gives about half of it."""
    a = measured(hypotheses_a, references, metric, tokenize, lowercase)
    b = measured(hypotheses_b, references, metric, tokenize, lowercase)
    drawn = a.resampled(resamples, seed) - b.resampled(resamples, seed)
    seen = a.score() - b.score()
    lower, upper = _interval(drawn)
    far = int((np.abs(drawn - drawn.mean()) >= abs(seen)).sum())
    return Difference(a.score(), b.score(), seen, lower, upper, (1 + far) / (resamples + 1))


def by_length(
    hypotheses: Sequence[str],
    references: References,
    lengths: Sequence[int],
    edges: int | Sequence[int] = 6,
    metric: str = "bleu",
    *,
    resamples: int = 1000,
    seed: int = 0,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> list[LengthBin]:
    """Corpus score per bin of source length: the curve of Bahdanau et al. 2015, figure 2, with 95 % intervals.

    `edges` are cut points: (10, 20) makes "below 10", "10 to 19" and "20 and more"; a whole number asks for that
    many bins of about equal count.  Every sentence falls in exactly one bin; empty bins are left out."""
    made = measured(hypotheses, references, metric, tokenize, lowercase)
    same_length(len(made.rows), lengths, "lengths")
    sizes = np.asarray(lengths, dtype=np.int64)
    cuts = _cuts(sizes, edges)
    which = np.searchsorted(cuts, sizes, side="right")  # bin b holds cuts[b-1] <= length < cuts[b]
    bins = []
    for b in np.unique(which).tolist():
        chosen = np.flatnonzero(which == b)
        low = cuts[b - 1] if b > 0 else int(sizes[chosen].min())
        high = cuts[b] - 1 if b < len(cuts) else int(sizes[chosen].max())
        part = Measured(made.name, made.signature, made.rows[chosen], made.finish)
        # a bin's interval depends on its own sentences only, not on which other bins there are
        lower, upper = _interval(part.resampled(resamples, (seed, max(low, 0))))
        bins.append(LengthBin(low, high, len(chosen), part.score(), lower, upper))
    return bins


def sample_table(
    sources: Sequence[str],
    references: References,
    hypotheses: Sequence[str],
    n: int = 5,
    seed: int = 0,
) -> list[SampleRow]:
    """Rows to look at: n drawn at random, then the n best and the n worst by sentence chrF (best and worst are
    disjoint, so fewer of each when there are fewer than 2n sentences).  Of several references the first is shown."""
    made = measured(hypotheses, references, "chrf", "none", False)
    N = len(made.rows)
    same_length(N, sources, "sources")
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = rng.choice(N, size=min(n, N), replace=False).tolist()
    values = [made.finish(row) for row in made.rows.tolist()]
    order = sorted(range(N), key=lambda i: (-values[i], i))
    best = order[: min(n, -(-N // 2))]
    worst = order[len(best) :][::-1][:n]
    picked: list[tuple[Literal["random", "best", "worst"], list[int]]]
    picked = [("random", drawn), ("best", best), ("worst", worst)]
    first = [r if isinstance(r, str) else r[0] for r in references]
    return [
        SampleRow(kind, i, sources[i], first[i], hypotheses[i], values[i])
        for kind, rows in picked
        for i in rows
    ]


def _interval(drawn: Floats) -> tuple[float, float]:
    lower, upper = np.quantile(drawn, (0.025, 0.975))
    return float(lower), float(upper)


def _cuts(sizes: NDArray[np.int64], edges: int | Sequence[int]) -> list[int]:
    if (sizes < 0).any():
        raise DataError(
            f"a length of {sizes.min()}", fix="lengths count tokens or words: 0 or more"
        )
    if isinstance(edges, int):
        if edges < 1:
            raise ConfigError(f"{edges} bins of length", fix="ask for at least 1")
        inner = np.quantile(sizes, np.arange(1, edges) / edges, method="higher")
        return sorted({int(c) for c in inner} - {int(sizes.min())})
    cuts = [int(e) for e in edges]
    if cuts != sorted(set(cuts)):
        raise ConfigError(f"edges {cuts} do not rise", fix="give them in rising order, each once")
    return cuts
