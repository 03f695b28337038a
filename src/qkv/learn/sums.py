"""Corpus metrics as sums over sentences, which is what makes thousands of resamples cheap.

    counts (R, N) @ rows (N, K) -> sums (R, K) -> scores (R,)

N sentences, K sufficient statistics of a sentence, R resamples; counts say how often a resample drew a sentence.
Making the rows and turning a sum into a score are sacreBLEU's own (Post 2018).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, MissingError, did_you_mean

METRICS = ("bleu", "chrf", "chrf++", "ter", "exact")
TOKENIZERS = ("13a", "intl", "char", "none", "zh", "ko-mecab", "ja-mecab", "flores101", "flores200")
BLOCK = 1 << 22  # counts drawn at once: 32 MiB of float64

Floats = NDArray[np.float64]
References = Sequence[str] | Sequence[Sequence[str]]  # one text, or several, for each sentence


@dataclass(frozen=True)
class Measured:
    """Sufficient statistics of a corpus: rows (N, K), and what turns their sum (K,) into a score."""

    name: str
    signature: str
    rows: Floats
    finish: Callable[[list[float]], float]

    def score(self) -> float:
        return self.finish(self.rows.sum(0).tolist())

    def resampled(self, resamples: int, seed: int | tuple[int, ...]) -> Floats:
        """Scores (R,) of `resamples` draws of N sentences out of N.  The same seed and N draw the same sentences."""
        if resamples < 1:
            raise ConfigError(f"resamples must be >= 1 (got {resamples})", fix="try 1000")
        rng = np.random.Generator(np.random.PCG64(seed))
        N = len(self.rows)
        scores: list[float] = []
        while len(scores) < resamples:
            R = min(max(1, BLOCK // N), resamples - len(scores))
            drawn = rng.integers(0, N, size=(R, N)) + np.arange(R)[:, None] * N
            counts = np.bincount(drawn.ravel(), minlength=R * N).reshape(R, N)
            # (R, N) @ (N, K) -> (R, K); whole numbers below 2^53, so exact in any order
            sums = counts.astype(np.float64) @ self.rows
            scores += map(self.finish, sums.tolist())
        return np.array(scores)


def same_length(N: int, other: Sequence[object], what: str) -> None:
    if len(other) != N:
        raise DataError(
            f"{N} hypotheses but {len(other)} {what}",
            fix="give one for each sentence",
            code="QKV-031",
        )


def _streams(hypotheses: Sequence[str], references: References) -> list[list[str | None]]:
    """Check both sides; return the references as sacreBLEU wants them: the k-th of every sentence, None where none."""
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise DataError("one text where a list of texts is needed", fix="wrap it in [ ]")
    if not hypotheses:
        raise DataError("no hypotheses to score", fix="give at least one", code="QKV-032")
    same_length(len(hypotheses), references, "references (one text or one list of texts each)")
    rows: list[list[str]] = [
        list(r) if isinstance(r, (list, tuple)) else [r]  # type: ignore[list-item]
        for r in references
    ]
    for i, (hypothesis, row) in enumerate(zip(hypotheses, rows, strict=True)):
        if not row:
            raise DataError(f"sentence {i} has no reference", fix="give one", code="QKV-032")
        for x in (hypothesis, *row):
            if not isinstance(x, str):
                raise DataError(f"sentence {i} holds {type(x).__name__} {x!r}", fix="give text")
    widest = max(map(len, rows))
    return [[row[k] if k < len(row) else None for row in rows] for k in range(widest)]


def measured(
    hypotheses: Sequence[str], references: References, metric: str, tokenize: str, lowercase: bool
) -> Measured:
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}", fix=did_you_mean(metric, METRICS))
    streams = _streams(hypotheses, references)
    if metric == "exact":
        return _exact(hypotheses, streams, lowercase)
    judge = _judge(metric, tokenize, lowercase)
    # sacreBLEU's own significance tests stand on these two methods, though they are not public;
    # test_scores_equal_sacrebleu holds them to the public corpus_score
    rows = np.array(judge._extract_corpus_statistics(list(hypotheses), streams), dtype=np.float64)
    name = {"bleu": "BLEU", "chrf": "chrF2", "chrf++": "chrF2++", "ter": "TER"}[metric]
    return Measured(
        name,
        str(judge.get_signature()),
        rows,
        lambda sums: float(judge._compute_score_from_stats(sums).score),
    )


def _exact(hypotheses: Sequence[str], streams: list[list[str | None]], lowercase: bool) -> Measured:
    def plain(text: str) -> str:
        return text.strip().lower() if lowercase else text.strip()

    right = [
        any(r is not None and plain(r) == plain(h) for r in refs)
        for h, *refs in zip(hypotheses, *streams, strict=True)
    ]
    rows = np.stack([np.array(right, dtype=np.float64), np.ones(len(right))], 1)  # (N, 2)
    counts = {sum(r is not None for r in refs) for refs in zip(*streams, strict=True)}
    nrefs = counts.pop() if len(counts) == 1 else "var"
    signature = f"nrefs:{nrefs}|case:{'lc' if lowercase else 'mixed'}"
    return Measured("exact", signature, rows, lambda sums: 100.0 * sums[0] / sums[1])


def _judge(metric: str, tokenize: str, lowercase: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    if metric == "chrf":
        return CHRF(lowercase=lowercase)
    if metric == "chrf++":
        return CHRF(lowercase=lowercase, word_order=2)
    if metric == "ter":
        return TER()
    if tokenize not in TOKENIZERS:
        fix = did_you_mean(tokenize, TOKENIZERS)
        raise ConfigError(f"unknown BLEU tokeniser {tokenize!r}", fix=fix)
    if tokenize.startswith("flores"):
        _refuse_download(tokenize)
    try:
        return BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
    except (ImportError, RuntimeError):
        raise MissingError(
            f"the BLEU tokeniser {tokenize!r} needs a package that is not installed",
            fix=f"pip install 'sacrebleu[{tokenize[:2]}]', or use tokenize='char'",
            code="QKV-022",
        ) from None


def _refuse_download(tokenize: str) -> None:
    """sacreBLEU would fetch this model without asking; an evaluation works offline or says what it lacks."""
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    url = SPM_MODELS[tokenize]["url"]
    path = Path(SACREBLEU_DIR) / "models" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        raise MissingError(
            f"the BLEU tokeniser {tokenize!r} needs a model that is not here",
            place=path,
            fix=f"fetch {url} to that path, or use tokenize='char'",
        )
