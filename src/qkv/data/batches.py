"""Which examples make batch number `step`: a pure function of (lengths, budget, seed, step).

    sort by (target, source) length -> strata of `mix` neighbours -> each epoch deals every stratum to `mix` decks
    -> cut each deck where rows x width would pass the budget -> shuffle the batches

The cuts use the longest example of a stratum, not the one dealt, so they are the same in every epoch: the number of
batches per epoch is a constant and seeking to step 10,000 costs one division.  All randomness is raw output of Philox
(Salmon et al. 2011) keyed by (seed, epoch, purpose), which numpy promises to keep, and stable sorting."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Index = NDArray[np.int64]
MIX = 8  # batches that share one neighbourhood of lengths
MOST_PADDING = 0.07  # mixing stops where padding would pass this share,
MORE_PADDING = 0.01  # or a full sort's by this much, where rounding up already costs more
ORDER, DEAL, BATCHES = 0, 1, 2  # purposes of random numbers


def _random(n: int, seed: int, epoch: int, purpose: int) -> NDArray[np.uint64]:
    entropy = np.random.SeedSequence([seed % 2**64, epoch, purpose])
    return np.random.Philox(entropy).random_raw(n).astype(np.uint64, copy=False)


def permutation(n: int, seed: int, epoch: int) -> Index:
    """A random order of range(n), a pure function of (n, seed, epoch) on every machine and numpy version."""
    return np.argsort(_random(n, seed, epoch, ORDER), kind="stable")


class Order:
    """Token-budget batches, each index once per epoch: rows x max(source, target), rounded up, <= budget.

    lengths (N, 2): source and target tokens, <eos> included.  An example longer than the budget is a batch of its own.
    Raises ConfigError for an empty corpus or a budget below 1."""

    def __init__(
        self,
        lengths: NDArray[np.integer],
        budget: int,
        seed: int,
        *,
        multiple: int = 1,
        mix: int = MIX,
    ) -> None:
        if budget < 1 or multiple < 1 or mix < 1:
            raise ConfigError(
                f"a batch of {budget} tokens is too small", fix="use at least 1 token"
            )
        if len(lengths) == 0:
            raise ConfigError("there are no examples to batch", fix="check the skip report")
        self.seed = seed
        self._sorted, self._cell = _by_length(lengths)
        padded = (-(-lengths.astype(np.int64) // multiple) * multiple)[self._sorted]
        self._decks, self._cut = _decks(padded, int(lengths.sum()), budget, mix)
        self.batches_per_epoch = _count(self._decks, self._cut, len(lengths))
        self._cached: tuple[int, list[Index]] = (-1, [])

    def plan(self, epoch: int) -> list[Index]:
        """The batches of an epoch in order; every index once."""
        if self._cached[0] != epoch:
            self._cached = epoch, self._plan(epoch)
        return self._cached[1]

    def _plan(self, epoch: int) -> list[Index]:
        N, P = len(self._sorted), self._decks
        noise = _random(N, self.seed, epoch, ORDER)
        # equals trade places: one sort by (cell of equal lengths, 32 random bits)
        ranked = self._sorted[np.argsort(self._cell | (noise >> np.uint64(32)), kind="stable")]
        full = np.full(-(-N // P) * P, -1, dtype=np.int64)
        full[:N] = ranked
        deal = _random(len(full), self.seed, epoch, DEAL).reshape(-1, P)
        decks = np.take_along_axis(full.reshape(-1, P), np.argsort(deal, axis=1, kind="stable"), 1)
        batches = [b for deck in decks.T for b in np.split(deck, self._cut[1:-1])]
        batches = [b if b[-1] >= 0 else b[b >= 0] for b in batches]
        batches = [b for b in batches if len(b)]
        turn = np.argsort(_random(len(batches), self.seed, epoch, BATCHES), kind="stable")
        return [batches[i] for i in turn]

    def batch(self, step: int) -> tuple[int, Index]:
        """(epoch, example indices) of a step counted from 0."""
        epoch, at = divmod(step, self.batches_per_epoch)
        return epoch, self.plan(epoch)[at]


def plan(
    lengths: NDArray[np.integer],
    budget: int,
    seed: int,
    epoch: int,
    *,
    multiple: int = 1,
    mix: int = MIX,
) -> list[Index]:
    """The batches of one epoch; see `Order`, which keeps what the epochs share."""
    return Order(lengths, budget, seed, multiple=multiple, mix=mix).plan(epoch)


def _by_length(lengths: NDArray[np.integer]) -> tuple[Index, NDArray[np.uint64]]:
    """Indices sorted by target, then source length, and the cell of equal lengths in the upper 32 bits.

    Source lengths run up and down in turn, so that a batch reaching over two target lengths stays narrow."""
    S, T = lengths[:, 0].astype(np.int64), lengths[:, 1].astype(np.int64)
    turning = np.where(T % 2 == 0, S, -S)
    ranked = np.lexsort((turning, T))
    S, T = S[ranked], T[ranked]
    new = np.concatenate([[False], (S[1:] != S[:-1]) | (T[1:] != T[:-1])])
    return ranked, np.cumsum(new).astype(np.uint64) << np.uint64(32)


def _decks(padded: Index, tokens: int, budget: int, mix: int) -> tuple[int, Index]:
    """As many decks as keep padding low, and where to cut each; padded (N, 2) in order of length."""
    tried = [(P, *_deck(padded, budget, P)) for P in range(1, mix + 1)]
    padding = [1 - tokens / area for _, _, area in tried]
    most = max(MOST_PADDING, padding[0] + MORE_PADDING)
    best = next((i for i in reversed(range(mix)) if padding[i] <= most), 0)
    return tried[best][0], tried[best][1]


def _deck(padded: Index, budget: int, decks: int) -> tuple[Index, int]:
    """Cuts of decks that take one example of each stratum of `decks` neighbours, and the most they compute."""
    N = len(padded)
    strata = np.maximum.reduceat(padded, np.arange(0, N, decks))  # (ceil(N / decks), 2)
    cut = _cuts(strata.max(axis=1), budget)
    widest = np.maximum.reduceat(strata, cut[:-1])
    rows = np.diff(np.minimum(cut * decks, N))
    return cut, int((widest.sum(axis=1) * rows).sum())


def _count(decks: int, cut: Index, n: int) -> int:
    """Batches per epoch: some decks have no card of the last stratum, which may be a batch alone."""
    missing = -n % decks
    return decks * (len(cut) - 1) - (missing if cut[-1] - cut[-2] == 1 else 0)


def _cuts(width: NDArray[np.int64], budget: int) -> Index:
    """Boundaries 0 = c_0 < c_1 < ... = n of the longest runs with count x widest <= budget, greedily."""
    cuts, n, at = [0], len(width), 0
    while at < n:
        window = width[at : at + budget // max(1, int(width[at])) + 1]
        area = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        at += max(1, int(np.searchsorted(area, budget, side="right")))
        cuts.append(at)
    return np.array(cuts, dtype=np.int64)


def fixed_batches(
    lengths: NDArray[np.integer], budget: int, *, multiple: int = 16, max_rows: int | None = None
) -> list[Index]:
    """Batches for evaluation: sorted by length, longest first, every example once, always the same.

    lengths (N,) or (N, k): the widest of a row counts.  Longest first: what does not fit in memory fails at once."""
    if budget < 1:
        raise ConfigError(f"a batch of {budget} tokens is too small", fix="use at least 1 token")
    widest = lengths.max(axis=1) if lengths.ndim == 2 else lengths
    width: Index = np.maximum(1, -(-widest.astype(np.int64) // multiple)) * multiple
    ranked = np.argsort(-width, kind="stable")
    made = np.split(ranked, _cuts(width[ranked], budget)[1:-1]) if len(ranked) else []
    rows = max_rows or len(width)
    return [part for batch in made for part in _pieces(batch, rows)]


def _pieces(batch: Index, rows: int) -> Iterator[Index]:
    for at in range(0, len(batch), rows):
        yield batch[at : at + rows]


def padding(lengths: NDArray[np.integer], batches: list[Index], multiple: int = 1) -> float:
    """The share of padding among all positions computed, sources and targets together."""
    places = real = 0
    for index in batches:
        widest = -(-lengths[index].max(axis=0) // multiple) * multiple
        places += int(widest.sum()) * len(index)
        real += int(lengths[index].sum())
    return 1 - real / places
