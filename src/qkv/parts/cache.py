"""Keys and values of the tokens already seen, so that a step costs one query and not the whole past."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import Keep

CHUNK = 16  # capacities are multiples of this: law 2, batch invariance


@dataclass(frozen=True)
class KV:
    """k and v (R, H, capacity, D).  `put` writes in place: the state before a step is spent by the step."""

    k: Tensor
    v: Tensor

    @classmethod
    def empty(cls, like: Tensor, rows: int, n_heads: int, d_head: int) -> Self:
        return cls(*(like.new_zeros(rows, n_heads, CHUNK, d_head) for _ in range(2)))

    def put(self, k: Tensor, v: Tensor, at: int, rows_at: Tensor | None = None) -> Self:
        """Write k and v (R, H, T, D) from position `at` on; grows when full.

        rows_at (R): each row writes its one token (T = 1) at a place of its own, none beyond `at`."""
        kv, more = self, at + k.shape[2] - self.k.shape[2]
        if more > 0:
            grown = (0, 0, 0, -(-more // CHUNK) * CHUNK)
            kv = replace(self, k=F.pad(self.k, grown), v=F.pad(self.v, grown))
        if rows_at is None:
            kv.k[:, :, at : at + k.shape[2]] = k
            kv.v[:, :, at : at + k.shape[2]] = v
        else:
            rows = torch.arange(len(rows_at), device=rows_at.device)
            kv.k[rows, :, rows_at] = k[:, :, 0]
            kv.v[rows, :, rows_at] = v[:, :, 0]
        return kv

    def reorder(self, rows: Tensor) -> Self:
        return replace(self, k=self.k.index_select(0, rows), v=self.v.index_select(0, rows))


def filled(length: int, rows: int, lengths: Tensor | None, device: torch.device) -> Keep:
    """keep (R, capacity) for caches whose first `length` positions hold a token; lengths (R): each row its own."""
    capacity = -(-length // CHUNK) * CHUNK
    here = torch.arange(capacity, device=device)
    if lengths is not None:
        return here < lengths[:, None]
    return (here < length).expand(rows, capacity)
