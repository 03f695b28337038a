"""What may come next, row by row: repetition, n-grams, bad words, forced tokens.

They look at what a row has been fed, prompt and answer (an encoder-decoder: its start token and answer), and follow the
definitions of `transformers`.  R rows of a step · V vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from .answer import SearchConfig

Rows = list[list[int]]
Ints = NDArray[np.int64]


def less_repetition(scores: Tensor, rows: Rows, penalty: float) -> Tensor:
    """scores (R, V) of ids that came before: s / penalty where s > 0, s * penalty where s < 0 (Keskar et al. 2019, eq. 3)."""
    made = scores.clone()
    for r, row in enumerate(rows):
        seen = torch.tensor(sorted(set(row)), device=scores.device)
        s = scores[r, seen]
        made[r, seen] = torch.where(s < 0, s * penalty, s / penalty)
    return made


def repeating(row: Sequence[int], n: int) -> set[int]:
    """The ids that would make the last n tokens of a row equal to n that it has already."""
    last = tuple(row[len(row) - n + 1 :])
    if len(last) < n - 1:
        return set()
    starts = range(len(row) - n + 1)
    return {row[i + n - 1] for i in starts if tuple(row[i : i + n - 1]) == last}


def completing(row: Sequence[int], words: Sequence[Sequence[int]]) -> set[int]:
    """The ids that would end one of the words."""
    return {w[-1] for w in words if len(w) <= len(row) + 1 and _ends_in(row, w[:-1])}


def _ends_in(row: Sequence[int], tail: Sequence[int]) -> bool:
    return not tail or list(row[-len(tail) :]) == list(tail)


def force(logp: Tensor, rows: list[int], i: int) -> None:
    """In place: nothing but id i may come in these rows, and it costs nothing."""
    logp[rows] = -torch.inf
    logp[rows, i] = 0.0


@dataclass
class Past:
    """What every row of a search was fed so far, and what follows from it for the next token.

    Where no setting asks, it holds nothing and costs nothing."""

    config: SearchConfig
    rows: Rows
    ends: tuple[int, ...]

    def __post_init__(self) -> None:
        c = self.config
        self.words = [w for w in c.bad_words if len(w) > 1 or w[0] not in self.ends]
        self.asked = c.repetition_penalty != 1 or c.no_repeat_ngram_size > 0 or bool(self.words)
        self.forced = c.forced_first is not None or c.forced_last is not None

    def _fit(self, V: int) -> None:
        c = self.config
        every = {
            "forced_first": (c.forced_first or 0,),
            "forced_last": (c.forced_last or 0,),
            "bad_words": tuple(i for word in self.words for i in word),
        }
        for name, ids in every.items():
            if ids and max(ids) >= V:
                raise ConfigError(
                    f"{name} has id {max(ids)}, but the model's vocabulary has {V}",
                    fix="name ids of the model's own tokenizer",
                )

    def follow(self, parents: Ints, tokens: Ints) -> None:
        """Row r goes on from row parents[r] with tokens[r]."""
        if self.asked:
            made = zip(parents.tolist(), tokens.tolist(), strict=True)
            self.rows = [[*self.rows[p], t] for p, t in made]

    def penalised(self, scores: Tensor) -> Tensor:
        if self.config.repetition_penalty == 1:
            return scores
        return less_repetition(scores, self.rows, self.config.repetition_penalty)

    def restrict(self, logp: Tensor, t: int, left: Ints) -> None:
        """In place: -inf for what may not come as token t of an answer; left (R): tokens each row may still get.

        Raises ConfigError at the first token for settings of ids that the model does not have."""
        if not (self.asked or self.forced):
            return
        if t == 0:
            self._fit(logp.shape[1])
        c = self.config
        for r, row in enumerate(self.rows if self.asked else ()):
            banned = completing(row, self.words)
            if c.no_repeat_ngram_size:
                banned |= repeating(row, c.no_repeat_ngram_size)
            if banned:
                logp[r, sorted(banned)] = -torch.inf
        if t == 0 and c.forced_first is not None:
            force(logp, list(range(len(logp))), c.forced_first)
        if c.forced_last is not None and (left == 1).any():
            force(logp, np.flatnonzero(left == 1).tolist(), c.forced_last)
