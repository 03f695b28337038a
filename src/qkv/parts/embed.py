"""ids -> vectors: token embedding, scale, absolute positions, dropout."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..shapes import Ids, States
from .dropout import Dropout
from .positions import sinusoid

TABLE = 1024  # rows of the sinusoid kept ready; longer texts compute theirs


class Embed(nn.Module):
    """x[b, t] = scale · token[ids[b, t]] + position[t]: (B, T) -> (B, T, C)."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        *,
        positions: Literal["sinusoid", "learned", "none"] = "sinusoid",
        max_positions: int = TABLE,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.token.weight, std=d_model**-0.5)
        self.position = nn.Embedding(max_positions, d_model) if positions == "learned" else None
        if self.position is not None:
            nn.init.normal_(self.position.weight, std=d_model**-0.5)
        wave = sinusoid(TABLE, d_model) if positions == "sinusoid" else None
        self.register_buffer("wave", wave, persistent=False)
        self.scale, self.drop = scale, Dropout(dropout)

    def forward(self, ids: Ids, start: int = 0) -> States:
        """`start` is the position of the first column."""
        x: Tensor = self.token(ids) * self.scale
        end = start + ids.shape[1]
        if self.position is not None:
            x = x + self.position(torch.arange(start, end, device=ids.device))
        elif self.wave is not None:
            wave: Tensor = self.wave  # type: ignore[assignment]
            if end > wave.shape[0]:
                wave = sinusoid(end, wave.shape[1]).to(wave)
            x = x + wave[start:end]
        dropped: Tensor = self.drop(x)
        return dropped
