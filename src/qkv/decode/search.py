"""search(net, batch, config): greedy, beam or sampled answers of a batch, each as if it stood alone.

Greedy and sampling walk one row per answer, here; beam search is in `beam`, what they share in `rows`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.interface import Steps
from ..shapes import Batch
from .answer import Hypothesis, SearchConfig, length_penalty
from .beam import beam_search
from .processors import Past
from .reader import Reader
from .rows import Flags, Floats, Ints, Task, banned_ids, filled, limits
from .sample import draw, keys, uniforms

# what to choose from (R, V), the answer each row belongs to (R), position -> ids (R)
Pick = Callable[[Tensor, Ints, int], Tensor]


@dataclass(frozen=True)
class Taken:
    """One step of a walk: the answers that were under way, and what each got."""

    answers: Ints  # (n)
    tokens: Ints  # (n)
    scores: Floats  # (n) log-probabilities of the model
    ended: Flags  # (n) by <eos>
    stopped: Flags  # (n) by a stop string


@torch.inference_mode()
def search(
    net: Steps,
    batch: Batch,
    config: SearchConfig | None = None,
    *,
    banned: tuple[int, ...] = (),
    reader: Reader | None = None,
) -> list[list[Hypothesis]]:
    """The answers of every source, best first; never none, and bitwise the same beside any neighbours (law 2).

    `banned` ids never come, nor what the net bans; the stop strings of `reader` end an answer.  The net must be in eval().
    Raises ConfigError beyond the net's positions, QkvError (QKV-075) on NaN logits, naming source and row."""
    if not len(batch):
        return []
    task = _task(net, batch, config or SearchConfig(), banned, reader)
    if task.config.beam > 1 or task.config.coverage > 0:
        return beam_search(task)
    n, pick = _pick(task)
    return _gather(task, n, walk(task, n, pick))


def steps(
    net: Steps,
    batch: Batch,
    config: SearchConfig,
    *,
    banned: tuple[int, ...] = (),
    reader: Reader | None = None,
) -> Iterator[Taken]:
    """The same answers, greedy or sampled, token by token as they come: answer a is number a % nbest of source a // nbest."""
    with torch.inference_mode():
        task = _task(net, batch, config, banned, reader)
        made = walk(task, *_pick(task))
    while True:
        with torch.inference_mode():  # not across a yield: the mode would leak into the caller
            taken = next(made, None)
        if taken is None:
            return
        yield taken


def _task(
    net: Steps, batch: Batch, config: SearchConfig, banned: tuple[int, ...], reader: Reader | None
) -> Task:
    reader = reader if reader is not None and reader.stop else None
    most = limits(net, batch, config)
    return Task(net, batch, config, most, banned_ids(net, banned), reader)


def _pick(task: Task) -> tuple[int, Pick]:
    """How many answers each source gets, and how their tokens are chosen."""
    return (task.config.nbest, _drawn(task)) if task.config.sampling else (1, _greedy)


def _greedy(logp: Tensor, answers: Ints, position: int) -> Tensor:
    return logp.max(-1).indices  # the first of equal ones


def _drawn(task: Task) -> Pick:
    """nbest samples of every source, in the order of their numbers."""
    n, config = task.config.nbest, task.config
    key = np.repeat(keys(task.batch), n)
    number = np.tile(np.arange(n), len(task.batch))

    def pick(logp: Tensor, answers: Ints, position: int) -> Tensor:
        u = uniforms(config.seed, key[answers], number[answers], position)
        return draw(logp, torch.from_numpy(u).to(logp.device), config)

    return pick


def walk(task: Task, n: int, pick: Pick) -> Iterator[Taken]:
    """One row per answer, n answers per source, each until <eos>, its limit, or where nothing is possible.

    Rows that have ended walk on, unheard, until leaving them out makes the step an eighth smaller."""
    owner = np.repeat(np.arange(len(task.batch)), n)
    limit, past = task.limits[owner], task.past(owner)
    live, going = np.arange(len(owner)), np.ones(len(owner), np.bool_)  # each row's answer
    words = task.words(owner)
    fed, state = task.begin(owner)
    for t in range(int(limit.max())):
        logits, state = task.net.step(fed, state)
        logp = task.log_probs(logits, going, owner[live], t)
        past.restrict(logp, t, limit[live] - t)
        chosen = pick(_weighed(logits, logp, past), live, t)
        value = logp.gather(1, chosen[:, None])[:, 0].cpu().numpy().astype(np.float64)
        token = chosen.cpu().numpy()
        going &= value > -np.inf
        ended = task.is_end(token)
        stopped = np.zeros_like(ended)
        for r in np.flatnonzero(going & ~ended) if words else ():
            words[live[r]].add(int(token[r]))
            stopped[r] = words[live[r]].stopped
        if going.any():
            yield Taken(live[going], token[going], value[going], ended[going], stopped[going])
        going &= ~ended & ~stopped & (t + 1 < limit[live])
        left = int(going.sum())
        if not left:
            return
        stay = np.arange(len(live))
        if 8 * filled(left, task.least) <= 7 * len(fed):
            stay = np.flatnonzero(going)
            state, live, going = state.reorder(task.padded(stay)), live[stay], going[stay]
            token = token[stay]
        past.follow(stay, token)
        fed = task.padded(token)


def _weighed(logits: Tensor, logp: Tensor, past: Past) -> Tensor:
    """What a token is chosen by: log-probabilities, or the penalised logits of what they leave possible."""
    if past.config.repetition_penalty == 1:
        return logp
    scores = past.penalised(logits[: len(logp)].float())
    return scores.masked_fill(logp == -torch.inf, -torch.inf)


def _gather(task: Task, n: int, taken: Iterator[Taken]) -> list[list[Hypothesis]]:
    """The answers of a walk, in the order of their sources."""
    A, T = n * len(task.batch), int(task.limits.max())
    ids, logps = np.zeros((A, T), np.int64), np.zeros((A, T))
    length, score = np.zeros(A, np.int64), np.zeros(A)
    ended, stopped = np.zeros(A, np.bool_), np.zeros(A, np.bool_)
    for t, step in enumerate(taken):
        a = step.answers
        ids[a, t], logps[a, t] = step.tokens, step.scores
        score[a] += step.scores
        length[a], ended[a], stopped[a] = t + 1, step.ended, step.stopped
    made = []
    for i, L in enumerate(length.tolist()):
        text = tuple(ids[i, : L - 1 if ended[i] else L].tolist())
        whole = bool(ended[i] | stopped[i])
        made.append(Hypothesis(text, float(score[i]), whole, tuple(logps[i, :L].tolist())))
    return [made[i : i + n] for i in range(0, A, n)]


__all__ = ["Hypothesis", "SearchConfig", "length_penalty", "search"]
