"""How right labels, numbers and spans are: shares of 100, but for correlations.

accuracy, macro-F1        a class for each text
pearson, spearman         a number for each text, in [-1, 1]
spans                     entity precision, recall, F1 (CoNLL-2003: kind and both ends must agree)
answers                   exact match and token F1 (Rajpurkar et al. 2016, section 6.1)"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def accuracy(found: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    return 100.0 * sum(a == b for a, b in zip(found, right, strict=True)) / max(len(right), 1)


def macro_f1(found: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """Mean over the classes that occur on either side of 2·tp / (2·tp + fp + fn)."""
    hit = Counter(a for a, b in zip(found, right, strict=True) if a == b)
    seen = Counter(found) + Counter(right)  # 2·tp + fp + fn
    return 100.0 * float(np.mean([2 * hit[c] / seen[c] for c in seen])) if seen else 0.0


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Σ (x - x̄)(y - ȳ) / √(Σ (x - x̄)² Σ (y - ȳ)²); 0 where a side is constant."""
    a, b = (np.asarray(v, dtype=np.float64) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation of the ranks; equal numbers share their mean rank."""
    return pearson(ranks(x).tolist(), ranks(y).tolist())


def ranks(x: Sequence[float]) -> Numbers:
    _, which, count = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    last = np.cumsum(count).astype(np.float64)
    mean: Numbers = last - (count - 1) / 2
    return mean[which]


def spans(
    found: Sequence[Iterable[Hashable]], right: Sequence[Iterable[Hashable]]
) -> dict[str, float]:
    """Micro-averaged over all texts: precision, recall and their harmonic mean."""
    both = [(set(a), set(b)) for a, b in zip(found, right, strict=True)]
    hit = sum(len(a & b) for a, b in both)
    made, asked = sum(len(a) for a, _ in both), sum(len(b) for _, b in both)
    return {
        "precision": 100.0 * hit / max(made, 1),
        "recall": 100.0 * hit / max(asked, 1),
        "f1": 200.0 * hit / max(made + asked, 1),
    }


def answers(found: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """The best over the right answers of each question; no right answer: the empty one is right."""
    exact, f1 = [], []
    for text, options in zip(found, right, strict=True):
        wanted = list(options) or [""]
        exact.append(max(float(bare(text) == bare(w)) for w in wanted))
        f1.append(max(_overlap(bare(text).split(), bare(w).split()) for w in wanted))
    return {"exact": 100.0 * float(np.mean(exact)), "f1": 100.0 * float(np.mean(f1))}


def bare(text: str) -> str:
    """Lower case, without punctuation and English articles, single spaces: "U.S." is "us", as the authors' script has it."""
    text = "".join(c for c in text.lower() if not _is_mark(c))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _is_mark(c: str) -> bool:
    return c in string.punctuation or unicodedata.category(c).startswith("P")


def _overlap(found: list[str], right: list[str]) -> float:
    """2·common / (all words); 1 where both are empty."""
    if not found and not right:
        return 1.0
    common = sum((Counter(found) & Counter(right)).values())
    return 2 * common / (len(found) + len(right))


def recall_at_1(
    a: Numbers,
    b: Numbers,
    same: Sequence[Hashable],
    texts: Sequence[tuple[Hashable, Hashable]] = (),
) -> float:
    """The share of rows of a (N, C) whose nearest row of b (N, C), by cosine, is of the same kind.

    texts: what both rows say; to find one's own text beside another row would be no feat and does not count."""
    a = a / np.linalg.norm(a, axis=1, keepdims=True).clip(1e-12)
    b = b / np.linalg.norm(b, axis=1, keepdims=True).clip(1e-12)
    cosine = a @ b.T
    places: dict[Hashable, list[int]] = {}
    for j, (_, text) in enumerate(texts):
        places.setdefault(text, []).append(j)
    for i, (text, _) in enumerate(texts):
        cosine[i, [j for j in places.get(text, ()) if j != i]] = -np.inf
    nearest = cosine.argmax(1).tolist()
    return accuracy([same[j] for j in nearest], list(same))
