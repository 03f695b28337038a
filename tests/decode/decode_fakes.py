"""Fake nets that answer what search asks of a model, and the slow twins of search and sampling.

PAD, START, EOS and then words.  Nothing here shares code with qkv.decode but the two result types."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qkv.shapes import Batch, pad

PAD, START, EOS = 0, 1, 2


def batch_of(rows: list[list[int]], multiple: int = 16) -> Batch:
    source, keep = pad(rows, PAD, multiple)
    return Batch(source, keep)


@dataclass(frozen=True)
class Prefix:
    """What a table net remembers: a number for everything it has read."""

    hash: Tensor  # (R)

    def reorder(self, rows: Tensor) -> Prefix:
        return Prefix(self.hash[rows])


class TableNet:
    """Logits (M, V) by the number of the prefix: any function of source and prefix, the same in any batch."""

    start_id, eos_id, pad_id = START, EOS, PAD
    max_positions: int | None = None

    def __init__(self, table: Tensor, max_positions: int | None = None) -> None:
        self.table, self.max_positions = table, max_positions
        self.rows: list[int] = []

    def start(self, batch: Batch) -> Prefix:
        weights = torch.arange(1, batch.source.shape[1] + 1)
        return Prefix((batch.source * batch.keep * weights).sum(1) % len(self.table))

    def step(self, ids: Tensor, state: Prefix) -> tuple[Tensor, Prefix]:
        self.rows.append(len(ids))
        hash = (state.hash * 31 + ids * 7 + 1) % len(self.table)
        return self.table[hash], Prefix(hash)


@dataclass(frozen=True)
class Sums:
    """What a sum net remembers: the source's mean and the running sum of what it was fed."""

    source: Tensor  # (R, C)
    sum: Tensor  # (R, C)
    attention: Tensor  # (R, S)

    def reorder(self, rows: Tensor) -> Sums:
        return Sums(self.source[rows], self.sum[rows], self.attention[rows])


class SumNet(nn.Module):
    """logits = W tanh(mean of the source + sum of the prefix): real products, so rows could disagree."""

    start_id, eos_id, pad_id = START, EOS, PAD

    def __init__(self, V: int, C: int = 64, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.max_positions: int | None = None
        rng = torch.Generator().manual_seed(seed)
        self.words = nn.Parameter(torch.randn(V, C, generator=rng).to(dtype))
        self.inner = nn.Parameter((torch.randn(C, C, generator=rng) / C**0.5).to(dtype))
        self.out = nn.Parameter((torch.randn(V, C, generator=rng) * 3 / C**0.5).to(dtype))

    def start(self, batch: Batch) -> Sums:
        keep = batch.keep[..., None]
        mean = (self.words[batch.source] * keep).sum(1) / keep.sum(1).clamp(min=1)
        share = batch.keep / batch.keep.sum(1, keepdim=True).clamp(min=1)
        return Sums(mean @ self.inner, torch.zeros_like(mean), share)

    def step(self, ids: Tensor, state: Sums) -> tuple[Tensor, Sums]:
        sum = state.sum + self.words[ids]
        return torch.tanh(state.source + sum @ self.inner) @ self.out.T, Sums(
            state.source, sum, state.attention
        )

    def logits(self, batch: Batch) -> Tensor:
        state = self.start(batch)
        fed = torch.cat((torch.full_like(batch.target[:, :1], START), batch.target[:, :-1]), 1)
        sums = self.words[fed].cumsum(1)
        return torch.tanh(state.source[:, None] + sums @ self.inner) @ self.out.T


class LookingNet(TableNet):
    """A table net that says where each row looked: at source position hash % length."""

    def start(self, batch: Batch) -> Looking:
        prefix = super().start(batch).hash
        return Looking(prefix, batch.keep.sum(1), torch.zeros(batch.source.shape))

    def step(self, ids: Tensor, state: Looking) -> tuple[Tensor, Looking]:
        logits, prefix = super().step(ids, Prefix(state.hash))
        where = prefix.hash % state.length.clamp(min=1)
        look = nn.functional.one_hot(where, state.attention.shape[1]).float() * 0.75
        return logits, Looking(prefix.hash, state.length, look)

    def step_attention(self, state: Looking) -> Tensor:
        return state.attention


@dataclass(frozen=True)
class Looking:
    hash: Tensor
    length: Tensor
    attention: Tensor

    def reorder(self, rows: Tensor) -> Looking:
        return Looking(self.hash[rows], self.length[rows], self.attention[rows])


def lp(length: int, alpha: float) -> float:
    return ((5 + length) / 6) ** alpha


def one_step(net, state, token: int, length: int, minimum: int):
    """log-probabilities of one row as a list, with what may not come at -inf."""
    logits, state = net.step(torch.tensor([token]), state)
    if bool((logits == -math.inf).all()):
        logp = [-math.inf] * logits.shape[1]
    else:
        logp = torch.log_softmax(logits.float(), -1)[0].tolist()
    for i in (PAD, START, *([EOS] if length < minimum else [])):
        logp[i] = -math.inf
    return logp, state


def oracle_beam(net, source: list[int], config, limit: int, looked=None):
    """The slow twin: one row at a time, Python lists, no early stop.  [(ids, score, finished, scores)]."""
    live = [((), 0.0, (), net.start(batch_of([source])), START, [0.0] * len(source))]
    done: list = []  # (rank, ids, score, finished, scores)

    def rank(score, length, cover):
        seen = [math.log(min(max(c, 1e-9), 1.0)) for c in cover]
        extra = config.coverage * math.fsum(seen) if config.coverage else 0.0
        return score / lp(length, config.alpha) + extra

    for t in range(limit):
        candidates = []
        for slot, (ids, score, scores, state, last, cover) in enumerate(live):
            logp, after = one_step(net, state, last, t, config.min_new_tokens)
            if config.coverage:
                a = net.step_attention(after)[0].tolist()
                cover = [c + x for c, x in zip(cover, a, strict=False)]
            ranked = sorted(range(len(logp)), key=lambda i: (-logp[i], i))
            for place, i in enumerate(ranked):
                if logp[i] > -math.inf:
                    item = (ids, score + logp[i], (*scores, logp[i]), after, i, cover)
                    candidates.append((-(score + logp[i]), slot, place, item))
        candidates.sort(key=lambda c: c[:3])
        for _, _, _, (ids, score, scores, _, i, cover) in candidates[: config.beam]:
            if i == EOS:
                done.append((rank(score, t + 1, cover), ids, score, True, scores))
        stuck = [(rank(s, t, c), ids, s, False, ss) for ids, s, ss, _, _, c in live]
        live = [
            ((*ids, i), score, scores, after, i, cover)
            for _, _, _, (ids, score, scores, after, i, cover) in candidates
            if i != EOS
        ][: config.beam]
        if len(done) >= config.beam or not live:
            break
    best = sorted(done, key=lambda d: -d[0])[: config.nbest]
    rest = [(rank(s, t + 1, c), ids, s, False, ss) for ids, s, ss, _, _, c in live] or stuck
    best += sorted(rest, key=lambda d: -d[0])[: max(0, config.nbest - len(best))]
    return [d[1:] for d in best]


def brute_force(net, source: list[int], alpha: float, limit: int, V: int):
    """Every sequence that ends within the limit, best first: [(score / lp, ids, score)]."""
    found = []

    def walk(ids, score, state, last):
        if len(ids) == limit:
            return
        logp, after = one_step(net, state, last, len(ids), 0)
        if logp[EOS] > -math.inf:
            total = score + logp[EOS]
            found.append((total / lp(len(ids) + 1, alpha), ids, total))
        for i in range(EOS + 1, V):
            if logp[i] > -math.inf:
                walk((*ids, i), score + logp[i], after, i)

    walk((), 0.0, net.start(batch_of([source])), START)
    return sorted(found, key=lambda f: -f[0])


def plain(hypotheses) -> list[tuple]:
    return [(h.ids, h.score, h.finished, h.token_scores) for h in hypotheses]
