"""Keys and values of the tokens already seen, so that a step costs one query and not the whole past."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 16  # capacities are multiples of this: law 2, batch invariance


@dataclass(frozen=True)
class KV:
    """k and v (R, H, capacity, D).  `put` writes in place: the state before a step is spent by the step."""

    k: Tensor
    v: Tensor

    @classmethod
    def empty(cls, like: Tensor, rows: int, n_heads: int, d_head: int) -> Self:
        return cls(*(like.new_zeros(rows, n_heads, CHUNK, d_head) for _ in range(2)))

    def put(self, k: Tensor, v: Tensor, at: int) -> Self:
        """Write one token per row, k and v (R, H, 1, D), at position `at`; grows when full."""
        kv = self
        if at >= self.k.shape[2]:
            kv = replace(self, k=F.pad(self.k, (0, 0, 0, CHUNK)), v=F.pad(self.v, (0, 0, 0, CHUNK)))
        kv.k[:, :, at : at + 1] = k
        kv.v[:, :, at : at + 1] = v
        return kv

    def reorder(self, rows: Tensor) -> Self:
        return replace(self, k=self.k.index_select(0, rows), v=self.v.index_select(0, rows))


def filled(length: int, rows: int, device: torch.device) -> Tensor:
    """keep (R, capacity) for caches whose first `length` positions hold a token."""
    capacity = -(-length // CHUNK) * CHUNK
    return (torch.arange(capacity, device=device) < length).expand(rows, capacity)
