"""Beam search with per-source ends, an exact early stop, and rows that leave as their source finishes.

A step ranks the continuations of a source's live hypotheses by summed log-probability (equal ones: better
parent first, then lower id).  Those among the `beam` best that end (in <eos>, or with a stop string) are finished; the
`beam` best that do not end live on.  A source is done at its limit, when nothing is possible, or, by `early_stopping`,

    True      when `beam` hypotheses are finished, or its n-th best answer cannot be beaten any more
    "never"   when its n-th best answer cannot be beaten any more
    False     when `beam` hypotheses are finished and the best live one is no better, ranked at its present length

The bound: log-probabilities only fall, so with s <= 0 the score of the best live hypothesis, and a coverage
penalty <= 0, whatever comes has at most

    s / lp(L)    L the limit, as lp grows with length; the present length where alpha < 0 lets it shrink

and a source whose n-th best finished answer has that much is done: n-best lists are as without stopping."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts.attention import Attention
from .answer import Hypothesis, rank_score
from .reader import Words
from .rows import Flags, Floats, Ints, Task, top


@dataclass(frozen=True)
class Candidates:
    """The best continuations of n sources, best first: all (n, M), M <= (1 + kinds of end) x beam."""

    value: Floats  # summed log-probability; -inf: not possible
    logp: Floats  # of the last token alone
    token: Ints
    parent: Ints  # row of the hypothesis it continues

    def columns(self, order: Ints) -> "Candidates":
        return Candidates(
            np.take_along_axis(self.value, order, 1),
            np.take_along_axis(self.logp, order, 1),
            np.take_along_axis(self.token, order, 1),
            np.take_along_axis(self.parent, order, 1),
        )

    def of(self, sources: Flags) -> "Candidates":
        """These sources only, as narrow as the one with the most live hypotheses."""
        wide = int((self.value[sources] > -np.inf).sum(1).max())
        value, logp = self.value[sources, :wide], self.logp[sources, :wide]
        return Candidates(value, logp, self.token[sources, :wide], self.parent[sources, :wide])


Look = Callable[
    [Any], Tensor
]  # state -> (R, S): the attention of the step just taken over the source


@contextmanager
def watched(net: Any, beta: float) -> Iterator[Look | None]:
    """Where the coverage penalty is on: the net's own `step_attention(state)`, or the mean over the heads of its last cross
    attention, which is probed meanwhile.  Raises ConfigError where it has neither."""
    if beta <= 0:
        yield None
        return
    if hasattr(net, "step_attention"):
        yield net.step_attention
        return
    modules = net.named_modules() if isinstance(net, nn.Module) else ()
    cross = [m for name, m in modules if name.endswith("cross") and isinstance(m, Attention)]
    if not cross:
        raise ConfigError(
            f"coverage {beta} needs a model that looks back at its source",
            fix="coverage=0",
            code="QKV-013",
        )
    last, before = cross[-1], cross[-1].probe
    seen: list[Tensor] = []

    def note(weights: Tensor) -> None:
        seen[:] = [weights.mean(1)[:, -1]]  # (R, H, 1, S) -> (R, S)
        if before is not None:
            before(weights)

    last.probe = note
    try:
        yield lambda state: seen[0]
    finally:
        last.probe = before


class Cover:
    """The attention each source token has had from each row, where the coverage penalty is on (else nothing).

    cp = beta * sum over source tokens of log min(attention so far, 1), Wu et al. 2016 eq. 14."""

    def __init__(self, task: Task, look: Look | None) -> None:
        self.task, self.beta, self.look = task, task.config.coverage, look
        self.sum: Tensor | None = None

    def add(self, state: Any, rows: int) -> None:
        if self.look is not None:
            seen = self.look(state)[:rows].double()
            self.sum = seen if self.sum is None else self.sum + seen

    def follow(self, parents: Tensor) -> None:
        if self.sum is not None:
            self.sum = self.sum[parents]

    def penalty(self, source: int, row: int) -> float:
        if self.sum is None:
            return 0.0
        seen = self.sum[row][self.task.batch.keep[source]].tolist()
        # fsum: exact, so the length that neighbours pad to cannot change a bit; 1e-9 stands for never looked at
        return self.beta * math.fsum(math.log(min(max(p, 1e-9), 1.0)) for p in seen)


@dataclass
class Ledger:
    """The answers so far of every source, and what a newcomer has to beat."""

    task: Task
    cover: Cover
    count: Ints  # (B) finished
    worst: Floats  # (B) the n-th best rank score; -inf: fewer than n
    found: list[list[tuple[float, Hypothesis]]]
    trail: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)  # each step's live rows

    def back(self, row: int) -> tuple[list[int], list[float]]:
        """Tokens and log-probabilities of a row of the last step, found through its parents."""
        ids, scores = [], []
        for parent, token, logp in reversed(self.trail):
            ids.append(int(token[row]))
            scores.append(float(logp[row]))
            row = int(parent[row])
        return ids[::-1], scores[::-1]

    def rank(self, source: int, score: float, length: int, row: int) -> float:
        """log P / lp(length) + cp"""
        return rank_score(score, length, self.task.config) + self.cover.penalty(source, row)

    @property
    def room(self) -> int:
        """How many answers are kept: a guess about the worst of `beam` needs them all."""
        config = self.task.config
        return config.beam if config.early_stopping is False else config.nbest

    def finish(self, source: int, best: Candidates, at: tuple[int, int], whole: bool) -> None:
        """Keep a hypothesis that has ended, or that the limit cut (not whole), where it is among the best."""
        row, score, token = int(best.parent[at]), float(best.value[at]), int(best.token[at])
        ids, scores = self.back(row)
        ranked = self.rank(source, score, len(ids) + 1, row)
        if token not in self.task.ends:
            ids = [*ids, token]
        made = Hypothesis(tuple(ids), score, whole, (*scores, float(best.logp[at])))
        found = self.found[source]
        found.append((ranked, made))
        found.sort(key=lambda pair: -pair[0])  # stable: of equal ones the first found stays first
        del found[self.room :]
        self.count[source] += 1
        if len(found) == self.room:
            self.worst[source] = found[-1][0]

    def fill(self, source: int, live: Candidates, n: int, stuck: Floats) -> None:
        """Unfinished answers behind the finished ones: the live ones, or where none can go on, their parents."""
        lacking = self.task.config.nbest - len(self.found[source])
        # where the cut ones are ranked with the others, they are there already
        if lacking <= 0 or (self.task.config.penalty == "length" and self.found[source]):
            return
        length = len(self.trail) + 1
        more: list[tuple[float, int, int | None]] = [
            (float(live.value[n, m]), int(live.parent[n, m]), m)
            for m in np.flatnonzero(live.value[n] > -np.inf).tolist()
        ]
        if not more:
            K, length = stuck.shape[1], length - 1
            alive = np.flatnonzero(stuck[n] > -np.inf).tolist()
            more = [(float(stuck[n, k]), n * K + k, None) for k in alive]
        ranked = [(self.rank(source, score, length, row), score, row, m) for score, row, m in more]
        ranked.sort(key=lambda made: -made[0])
        for rank, score, row, m in ranked[:lacking]:
            ids, scores = self.back(row)
            if m is not None:
                ids, scores = [*ids, int(live.token[n, m])], [*scores, float(live.logp[n, m])]
            made = Hypothesis(tuple(ids), score, False, tuple(scores))
            self.found[source].append((rank, made))


def beam_search(task: Task) -> list[list[Hypothesis]]:
    """The n best hypotheses of every source, best first by log P / lp + cp (Wu et al. 2016 eq. 14).

    Fewer than n where fewer are possible, never none."""
    with watched(task.net, task.config.coverage) as look:
        return _search(task, Cover(task, look))


def _search(task: Task, cover: Cover) -> list[list[Hypothesis]]:
    B, beam = len(task.batch), task.config.beam
    ledger = Ledger(task, cover, np.zeros(B, np.int64), np.full(B, -np.inf), [[] for _ in range(B)])
    source, score = np.arange(B), np.zeros((B, 1))  # n sources with K rows each; score (n, K)
    fed, state = task.begin(source)
    past, words = task.past(source), task.words(source)
    for t in range(int(task.limits.max())):
        logits, state = task.net.step(fed, state)
        cover.add(state, score.size)
        owner = np.repeat(source, score.shape[1])
        logp = task.log_probs(logits, (score > -np.inf).ravel(), owner, t)
        logp = past.penalised(logp)
        past.restrict(logp, t, task.limits[owner] - t)
        best = _continue(logp, score, beam, 1 + max(len(task.ends), 1))
        ends = _ends(task, best, words)
        last = task.limits[source] <= t + 1
        cut = last & (task.config.penalty == "length")
        over = (ends | cut[:, None]) & (best.value > -np.inf)
        for n, m in np.argwhere(over[:, :beam]).tolist():
            ledger.finish(int(source[n]), best, (n, m), bool(ends[n, m]))
        live = _live(best, ends, beam)
        done = last | _done(task, ledger, live.value[:, 0], source, t + 1)
        for n in np.flatnonzero(done).tolist():
            ledger.fill(int(source[n]), live, n, score)
        if done.all():
            break
        live, source = live.of(~done), source[~done]
        parents, tokens = live.parent.ravel(), live.token.ravel()
        past.follow(parents, tokens)
        if words:
            pairs = zip(parents.tolist(), tokens.tolist(), strict=True)
            words = [words[p].then(i) for p, i in pairs]
        fed, state = _advance(task, live, cover, state, len(fed))
        ledger.trail.append((live.parent.ravel(), live.token.ravel(), live.logp.ravel()))
        score = live.value
    return [[made for _, made in found[: task.config.nbest]] for found in ledger.found]


def _ends(task: Task, best: Candidates, words: list[Words]) -> Flags:
    """Which candidates end: in one of the ids that do, or because a stop string is complete."""
    ends = task.is_end(best.token)
    for n, m in np.argwhere(~ends & (best.value > -np.inf)).tolist() if words else ():
        ends[n, m] = words[int(best.parent[n, m])].then(int(best.token[n, m])).stopped
    return ends


def _done(task: Task, ledger: Ledger, score: Floats, source: Ints, length: int) -> Flags:
    """Which sources can stop, given the score of their best live hypothesis of that length."""
    config, worst, full = (
        task.config,
        ledger.worst[source],
        ledger.count[source] >= task.config.beam,
    )
    if config.early_stopping is False:
        now = np.array([rank_score(s, length, config) for s in score.tolist()])
        worse: Flags = (full & (now <= worst)) | (score == -np.inf)
        return worse
    longest = task.limits[source] if config.alpha > 0 else np.full(len(source), length)
    pairs = zip(score.tolist(), longest.tolist(), strict=True)
    bound = np.array([rank_score(s, n, config) for s, n in pairs])
    safe: Flags = bound <= worst  # also where nothing is possible: both -inf
    if config.early_stopping is True:
        safe |= full
    return safe


def _continue(logp: Tensor, score: Floats, beam: int, more: int) -> Candidates:
    """The more x beam best continuations of each source: enough for `beam` that do not end."""
    n, K = score.shape
    values, ids = top(logp, beam + more - 1)  # each <eos> may be one of them, and beam must be left
    last = values.cpu().numpy().astype(np.float64).reshape(n, -1)
    token = ids.cpu().numpy().reshape(n, -1)
    wide = values.shape[1]
    total = np.repeat(score, wide, axis=1) + last
    order = np.argsort(-total, axis=1, kind="stable")[:, : more * beam]
    parent = order // wide + np.arange(n)[:, None] * K
    return Candidates(
        np.take_along_axis(total, order, 1),
        np.take_along_axis(last, order, 1),
        np.take_along_axis(token, order, 1),
        parent,
    )


def _live(best: Candidates, ended: Flags, beam: int) -> Candidates:
    """The `beam` best that do not end; what is left of the width has value -inf."""
    if not ended.any():
        return best.columns(np.arange(min(beam, ended.shape[1]))[None].repeat(len(ended), 0))
    order = np.argsort(ended, axis=1, kind="stable")[:, :beam]
    live, over = best.columns(order), np.take_along_axis(ended, order, 1)
    return replace(live, value=np.where(over, -np.inf, live.value))


def _advance(
    task: Task, live: Candidates, cover: Cover, state: Any, rows: int
) -> tuple[Tensor, Any]:
    """Follow the live rows: their tokens to feed and the state, in padded rows."""
    parents = task.padded(live.parent.ravel())
    if len(parents) != rows or not torch.equal(parents, torch.arange(rows, device=task.device)):
        state = state.reorder(parents)
        cover.follow(parents[: live.parent.size])
    return task.padded(live.token.ravel()), state
