"""Sub-word sampling in Python, since the libraries draw from global generators that cannot be seeded.

Both samplers cut the text into words, keep what can be computed once per word, and make one draw per step.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Protocol

from .config import TextConfig
from .pipeline import BYTES, CUT, SPECIALS

CACHE = 1 << 17  # entries, then the cache starts afresh
LONGEST = 64  # BPE words of more symbols are not sampled: each merge would look at the whole word
SHARPEST = 1e12  # theta; keeps theta * score finite however small alpha is
BYTE0 = len(SPECIALS)


class Sampler(Protocol):
    def sample(self, ready: str, rng: random.Random, alpha: float) -> list[int]: ...


def sampler(
    config: TextConfig, model: dict[str, Any], whole: Callable[[str], list[int]]
) -> Sampler | None:
    """The sampler of this kind, or None; `whole` encodes a word without sampling."""
    if config.kind == "bpe":
        return BpeDropout(model, whole)
    return UnigramSampling(model) if config.kind == "unigram" else None


def _bytes(text: str) -> tuple[int, ...]:
    return tuple(BYTE0 + b for b in text.encode())


State = tuple[int, ...]


class BpeDropout:
    """BPE whose every merge is dropped with probability alpha, anew at each step (Provilkov et al. 2020, algorithm 1).

    Of the candidates in order of rank the first survivor is merged, so the k-th is taken with probability
    alpha^k (1 - alpha) and none with alpha^n: one uniform number a step decides."""

    def __init__(self, model: dict[str, Any], whole: Callable[[str], list[int]]) -> None:
        vocab = model["vocab"]
        self.whole = whole
        self.chars = {p: (i,) for p, i in vocab.items() if len(p) == 1}
        self.rank = {
            (vocab[a], vocab[b]): (r, vocab[a + b]) for r, (a, b) in enumerate(model["merges"])
        }
        self.begin: dict[str, State] = {}
        self.next: dict[State, list[State]] = {}

    def sample(self, ready: str, rng: random.Random, alpha: float) -> list[int]:
        ids: list[int] = []
        draw, log = rng.random, math.log
        scale = 1 / log(alpha) if alpha < 1 else 0.0
        for word in CUT.findall(ready):
            state = self.begin.get(word) or self._symbols(word)
            if len(state) > LONGEST:
                ids += self.whole(word)
                continue
            while after := self.next.get(state) if state in self.next else self._merged(state):
                if alpha == 1:
                    break
                # P(dropped >= k) = alpha^k, so k = floor(log u / log alpha), u in (0, 1]
                k = int(log(1 - draw()) * scale)
                if k >= len(after):
                    break
                state = after[k]
            ids += state
        return ids

    def _symbols(self, word: str) -> State:
        if len(self.begin) >= CACHE:
            self.begin.clear()
        made = tuple(i for c in word for i in self.chars.get(c) or _bytes(c))
        if len(made) <= LONGEST:
            self.begin[word] = made
        return made

    def _merged(self, state: State) -> list[State]:
        """The states one merge away, best merge first (of equals the leftmost)."""
        if len(self.next) >= CACHE:
            self.next.clear()
        found = []
        for at, pair in enumerate(zip(state, state[1:], strict=False)):
            if hit := self.rank.get(pair):
                found.append((hit[0], at, hit[1]))
        made = [state[:at] + (new,) + state[at + 2 :] for _, at, new in sorted(found)]
        if len(state) <= LONGEST // 2:  # longer states do not come again
            self.next[state] = made
        return made


Node = tuple[list[float], list[int], list[tuple[int, ...]]]  # running weights, starts, ids


class UnigramSampling:
    """Forward filtering, backward sampling over the cuts of each word (Kudo 2018, section 3.2).

    p(cut) ~ exp(theta * sum of scores), theta = 1 / alpha - 1."""

    def __init__(self, model: dict[str, Any]) -> None:
        vocab = model["vocab"]
        own = range(BYTE0 + len(BYTES), len(vocab))
        self.pieces = {vocab[i][0]: (vocab[i][1], (i,)) for i in own}
        self.longest = max((len(p) for p in self.pieces), default=1)
        # as the library does: an unknown character is 10 worse than the worst piece
        self.unknown = min(score for _, score in vocab) - 10
        self.tables: dict[str, list[Node]] = {}
        self.theta = math.nan

    def sample(self, ready: str, rng: random.Random, alpha: float) -> list[int]:
        theta = min(1 / alpha - 1, SHARPEST)
        if theta != self.theta:
            self.tables, self.theta = {}, theta
        tables, draw = self.tables, rng.random
        back: list[tuple[int, ...]] = []
        for word in reversed(CUT.findall(ready)):
            table = tables.get(word) or self._table(word)
            end = len(word)
            while end:
                sums, starts, ids = table[end]
                k = bisect_right(sums, draw() * sums[-1]) if len(sums) > 1 else 0
                back.append(ids[k])
                end = starts[k]
        back.reverse()
        return [i for ids in back for i in ids]

    def _table(self, word: str) -> list[Node]:
        """For each end the running sums of exp(forward[start] + theta * score - max), the starts and the ids."""
        edges = self._edges(word)
        forward = [0.0]
        table: list[Node] = [([], [], [])]
        for e in range(1, len(word) + 1):
            into = edges[e]
            logs = [forward[s] + self.theta * score for s, score, _ in into]
            top = max(logs)
            sums: list[float] = []
            total = 0.0
            for x in logs:
                sums.append(total := total + math.exp(x - top))
            forward.append(top + math.log(total))
            table.append((sums, [s for s, _, _ in into], [ids for _, _, ids in into]))
        if len(self.tables) >= CACHE:
            self.tables.clear()
        if len(word) <= LONGEST:
            self.tables[word] = table
        return table

    def _edges(self, word: str) -> list[list[tuple[int, float, tuple[int, ...]]]]:
        n, get = len(word), self.pieces.get
        edges: list[list[tuple[int, float, tuple[int, ...]]]] = [[] for _ in range(n + 1)]
        for s in range(n):
            if word[s] not in self.pieces:
                edges[s + 1].append((s, self.unknown, _bytes(word[s])))
            for e in range(s + 1, min(n, s + self.longest) + 1):
                if hit := get(word[s:e]):
                    edges[e].append((s, *hit))
        return edges
