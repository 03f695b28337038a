"""The sparse attention of published BigBirds (Zaheer et al. 2020, appendix D), as `transformers` computes it.

A text of n blocks: the first and the last block see all and are seen by all, each other block sees itself, its two
neighbours and `random` blocks.  Here everything that differs from that description is a QUIRK with a test:

QUIRK `in eval mode the random blocks are all block 0`: it is seen 1 + random times, that is with log(1 + random) added to its
scores.  test_eval_counts_block_zero_again
QUIRK `in training the random blocks are among the first 2 random + 5`, of a stream that is the same at every step: numpy's,
seeded with the layer's number.  Texts of 1024, 3072 and 4096 tokens draw from another plan, in which a block may also be a
neighbour and then counts twice.  test_training_draws_the_same_blocks
QUIRK `lengths are those of the padded batch`: its last block is the global one, and a batch of at most (5 + 2 random) blocks
is computed in full.  test_the_padded_batch_decides"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..parts import kernels
from ..parts.attention import Attention, AttentionConfig
from ..parts.patterns import Allowed
from ..shapes import Bias, Heads, Keep, Maps, Mask, States

PLANNED = (1024, 3072, 4096)  # lengths whose random blocks follow the plan of the paper's runs
REACH = 1024  # tokens from which that plan draws


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a layer may see, by blocks of `size` tokens."""

    size: int
    random: int
    n_heads: int
    seed: int  # the layer's number
    max_positions: int

    @property
    def full(self) -> int:
        """Tokens up to which all is seen."""
        return (5 + 2 * self.random) * self.size

    def count(self, S: int) -> int:
        """Blocks of S tokens, the last perhaps in part."""
        return -(-S // self.size)

    def table(self, S: int, training: bool) -> Tensor:
        """(H or 1, n - 2, m) int64: the blocks that each block but the first and the last sees, as often as it sees
        them; n: none."""
        n = self.count(S)
        drawn = (
            draws(self, n) if training else torch.zeros(1, n - 2, self.random, dtype=torch.int64)
        )
        i = torch.arange(1, n - 1)[:, None]
        near = i + torch.tensor([-1, 0, 1])
        first, last = torch.zeros_like(i), torch.full_like(i, n - 1)
        first[0], last[-1] = n, n  # neighbours already
        seen = torch.cat([first, near, last], 1).expand(len(drawn), -1, -1)
        return torch.cat([seen, drawn], 2)

    def times(self, S: int, training: bool) -> Tensor:
        """(H or 1, n, n): how often each block sees each."""
        n, table = self.count(S), self.table(S, training)
        made = torch.zeros(len(table), n - 2, n + 1)
        made.scatter_add_(2, table, torch.ones(table.shape))
        return F.pad(made[..., :n], (0, 0, 1, 1), value=1.0)


@lru_cache(maxsize=256)
def draws(plan: Plan, n: int) -> Tensor:
    """(H, n - 2, random) int64: the random blocks of training."""
    source = np.random.RandomState(plan.seed)
    if n * plan.size in PLANNED:
        try:
            made = [_planned(source, plan)[: n - 2] for _ in range(plan.n_heads)]
        except ValueError:
            raise ConfigError(
                f"{n * plan.size} tokens in blocks of {plan.size}: fewer than {plan.random} to draw from",
                fix='smaller blocks, or sparse = "blocks"',
                code="QKV-013",
            ) from None
        return torch.from_numpy(np.stack(made))
    rows = [[_row(source, i, plan.random) for _ in range(plan.n_heads)] for i in range(1, n)]
    return torch.from_numpy(np.array(rows[:-1], np.int64).transpose(1, 0, 2).copy())


def _row(source: np.random.RandomState, i: int, r: int) -> NDArray[np.int64]:
    """r of the first 2 r + 5 blocks: not block i or its neighbours, not the first of these blocks nor the last; block 1 does
    not draw the last but one, nor that one block 1."""
    reach = 2 * r + 5
    barred = {0, reach - 1, i - 1, i, i + 1}
    barred |= ({reach - 2} if i == 1 else set()) | ({1} if i == reach - 2 else set())
    order = source.permutation(np.arange(reach, dtype=np.int32))
    return np.array([c for c in order if c not in barred][:r], np.int64)


def _planned(source: np.random.RandomState, plan: Plan) -> NDArray[np.int64]:
    """The plan of the paper's runs, for a text as long as the positions go: every block draws from the first 1024 tokens'."""
    n, r = plan.max_positions // plan.size, plan.random
    middle = np.arange(1, n - 1, dtype=np.int32)
    last = REACH // plan.size - 1 if REACH > 2 * plan.size else n - 1
    made = np.zeros((n - 2, r), np.int64)
    for i in range(1, n - 1):
        if i == 1:
            free = middle[2:last]
        elif i == 2:
            free = middle[3:last]
        elif i in (n - 3, n - 2):
            free = middle[:last]
        elif i - 2 > last:
            free = middle[:last]
        elif i + 1 == last:
            free = middle[: i - 2]
        else:
            free = np.concatenate((middle[: i - 2], middle[i + 1 : last]))
        made[i - 1] = source.permutation(free)[:r]
    return made


class BlockAttention(Attention):
    """softmax(scale · q kᵀ + log times) v, times (T, S): how often a token sees another, by the plan.  Short batches, and
    those with marked or packed tokens, by the definition."""

    def __init__(self, config: AttentionConfig, plan: Plan) -> None:
        super().__init__(config)
        self.plan = plan

    def times(self, allowed: Allowed) -> Tensor | None:
        """(1 or B, H or 1, S, S): how often tokens see each other; None where all do once."""
        S, plan = allowed.keep.shape[1], self.plan
        if S <= plan.full:
            return None
        each = plan.times(S, self.training).to(allowed.keep.device)
        wide = each.repeat_interleave(plan.size, 1).repeat_interleave(plan.size, 2)
        wide = wide[None, :, :S, :S]
        if allowed.marked is None:
            return wide
        marked = allowed.marked[:, None, None] | allowed.marked[:, None, :, None]
        return torch.where(marked, wide.clamp(min=1), wide)

    def sees(self, allowed: Allowed) -> Mask:
        times = self.times(allowed)
        return allowed.dense() if times is None else allowed.dense() & (times > 0)

    def weights(self, q: Heads, k: Heads, allowed: Allowed, bias: Bias | None) -> Maps:
        times, s = self.times(allowed), kernels.scores(q, k, bias=None, scale=self.scale)
        s = s if times is None else s + times.to(s.dtype).log()
        return kernels.softmax(s, self.sees(allowed))

    def forward(
        self, q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None
    ) -> States:
        if q.shape[2] <= self.plan.full:
            return super().forward(q, k, v, allowed, bias=bias)
        if self.probe is not None:
            with torch.no_grad():
                self.probe(self.weights(q, k, allowed, bias))
        if allowed.marked is not None or allowed.group is not None:
            y = self.weights(q, k, allowed, bias) @ v
        else:
            table = self.plan.table(q.shape[2], self.training).to(q.device)
            y = gathered(q, k, v, allowed.keep, table, self.plan.size, self.scale)
        merged: Tensor = self.o(y.transpose(1, 2).flatten(-2).to(q.dtype))
        return merged


def gathered(
    q: Heads, k: Heads, v: Heads, keep: Keep, table: Tensor, size: int, scale: float
) -> Heads:
    """The same without the (T, S) weights: the keys and values of the blocks that a block sees, side by side.

    table (H or 1, n - 2, m) as `Plan.table` has it.  Time and memory grow with S · m · size."""
    if q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16):
        q, k, v = q.float(), k.float(), v.float()
    S, n = q.shape[2], table.shape[1] + 2
    extra = n * size - S
    q, k, v = (F.pad(x, (0, 0, 0, extra)) if extra else x for x in (q, k, v))
    keep = F.pad(keep, (0, extra))
    with torch.autocast(q.device.type, enabled=False):
        ends = torch.cat([q[:, :, :size], q[:, :, -size:]], 2)
        ends = seen(ends, k, v, keep[:, None, None], scale)
        middle = _middle(q[:, :, size:-size], k, v, keep, table, scale)
    y = torch.cat([ends[:, :, :size], middle, ends[:, :, size:]], 2)
    return y[:, :, :S]


def _middle(q: Heads, k: Heads, v: Heads, keep: Keep, table: Tensor, scale: float) -> Heads:
    B, H, _, D = q.shape
    rows = table.shape[1]
    n, size = rows + 2, keep.shape[1] // (rows + 2)
    heads = torch.arange(H, device=q.device)[:, None, None]
    at = table.expand(H, -1, -1)

    def beside(x: Heads) -> Heads:  # (B, H, n size, D) -> (B, H rows, m size, D)
        blocks = F.pad(x, (0, 0, 0, size)).view(B, H, n + 1, size, D)
        return blocks[:, heads, at].view(B, H * rows, -1, D)

    known = F.pad(keep, (0, size)).view(B, n + 1, size)
    may = known[:, table].flatten(3).expand(-1, H, -1, -1).flatten(1, 2)  # (B, H rows, m size)
    y = seen(q.reshape(B, H * rows, size, D), beside(k), beside(v), may[:, :, None], scale)
    return y.view(B, H, rows * size, D)


def seen(q: Heads, k: Heads, v: Heads, may: Tensor, scale: float) -> Heads:
    """softmax(scale · q kᵀ) v over the keys that may be seen."""
    added = torch.zeros(may.shape, dtype=q.dtype, device=q.device).masked_fill(~may, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)
