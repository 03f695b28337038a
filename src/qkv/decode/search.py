"""search(net, batch, config): greedy, beam or sampled answers of a batch, each as if it stood alone.

Greedy and sampling walk one row per answer, here; beam search is in `beam`, what they share in `rows`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..models.interface import Steps
from ..shapes import Batch
from .answer import Hypothesis, SearchConfig, length_penalty
from .beam import beam_search
from .rows import Ints, Task, banned_ids, limits, padded, round_up
from .sample import draw, keys, uniforms

# logp (R, V), the answer each row belongs to (R), position -> ids (R)
Pick = Callable[[Tensor, Ints, int], Tensor]


@torch.inference_mode()
def search(
    net: Steps, batch: Batch, config: SearchConfig | None = None, *, banned: tuple[int, ...] = ()
) -> list[list[Hypothesis]]:
    """The answers of every source, best first; never none, and bitwise the same beside any neighbours (law 2).

    `banned` ids never come, nor do padding and the start token.  The net must be in eval().
    Raises ConfigError beyond the net's positions, QkvError (QKV-075) on NaN logits, naming source and row."""
    config = config or SearchConfig()
    if not len(batch):
        return []
    task = Task(net, batch, config, limits(net, batch, config), banned_ids(net, banned))
    if config.beam > 1 or config.coverage > 0:
        return beam_search(task)
    return _sample(task) if config.sampling else _walk(task, 1, _greedy)


def _greedy(logp: Tensor, answers: Ints, position: int) -> Tensor:
    return logp.max(-1).indices  # the first of equal ones


def _sample(task: Task) -> list[list[Hypothesis]]:
    """nbest samples of every source, in the order of their numbers."""
    n, config = task.config.nbest, task.config
    key = np.repeat(keys(task.batch), n)
    number = np.tile(np.arange(n), len(task.batch))

    def pick(logp: Tensor, answers: Ints, position: int) -> Tensor:
        u = uniforms(config.seed, key[answers], number[answers], position)
        return draw(logp, torch.from_numpy(u).to(logp.device), config)

    return _walk(task, n, pick)


def _walk(task: Task, n: int, pick: Pick) -> list[list[Hypothesis]]:
    """One row per answer, n answers per source, each until <eos>, its limit, or where nothing is possible.

    Rows that have ended walk on, unheard, until leaving them out makes the step an eighth smaller."""
    owner = np.repeat(np.arange(len(task.batch)), n)
    limit, eos = task.limits[owner], task.net.eos_id
    A, T = len(owner), int(limit.max())
    ids, logps = np.zeros((A, T), np.int64), np.zeros((A, T))
    length, score, finished = np.zeros(A, np.int64), np.zeros(A), np.zeros(A, np.bool_)
    live, going = (
        np.arange(A),
        np.ones(A, np.bool_),
    )  # the answer of each row; is it still under way
    fed, state = task.begin(owner)
    for t in range(T):
        logits, state = task.net.step(fed, state)
        logp = task.log_probs(logits, going, owner[live], t)
        chosen = pick(logp, live, t)
        value = logp.gather(1, chosen[:, None])[:, 0].cpu().numpy().astype(np.float64)
        token = chosen.cpu().numpy()
        going &= value > -np.inf
        ids[live, t], logps[live, t] = token, value
        score[live[going]] += value[going]
        length[live[going]] = t + 1
        ended = going & (token == eos)
        finished[live[ended]] = True
        going &= ~ended & (t + 1 < limit[live])
        left = int(going.sum())
        if not left:
            break
        rows = len(fed)
        if 8 * round_up(left) <= 7 * rows:
            stay = np.flatnonzero(going)
            state, live, going = state.reorder(padded(stay, task.device)), live[stay], going[stay]
            token = token[stay]
        fed = padded(token, task.device)
    made = []
    for a in range(A):
        L = int(length[a])
        text = ids[a, : L - 1 if finished[a] else L].tolist()
        scores = tuple(logps[a, :L].tolist())
        made.append(Hypothesis(tuple(text), float(score[a]), bool(finished[a]), scores))
    return [made[i : i + n] for i in range(0, A, n)]


__all__ = ["Hypothesis", "SearchConfig", "length_penalty", "search"]
