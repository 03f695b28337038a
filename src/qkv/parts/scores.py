"""How a query is compared with a key.

dot       q·k                                    Luong et al. 2015, section 3.1
scaled    q·k / √D                               Vaswani et al. 2017, eq. 1
cosine    g · q·k / (|q| |k|), g learned         Graves et al. 2014, eq. 6
general   qᵀ W k / √D                            Luong et al. 2015, section 3.1
additive  wᵀ tanh(q + k)                         Bahdanau et al. 2015, appendix A.1.2 (its W and U are the projections)

All but `additive` are a dot product after a change of q, so that the fused kernel serves them."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..shapes import Heads

Score = Literal["scaled", "dot", "cosine", "general", "additive"]


class General(nn.Module):
    """q -> q W, one W (D, D) per head."""

    def __init__(self, n_heads: int, d_head: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(d_head).repeat(n_heads, 1, 1))

    def forward(self, q: Heads) -> Heads:
        return q @ self.weight


class Additive(nn.Module):
    """wᵀ tanh(q + k) for every pair: (B, H, T, D) and (B, H, S, D) -> scores (B, H, T, S)."""

    def __init__(self, n_heads: int, d_head: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_heads, 1, d_head, 1) * d_head**-0.5)

    def forward(self, q: Heads, k: Heads) -> Tensor:
        pairs = torch.tanh(q.unsqueeze(3) + k.unsqueeze(2))  # (B, H, T, S, D)
        return (pairs @ self.weight).squeeze(-1)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1, eps=1e-6)
