"""ids -> vectors: token embedding, scale, positions, segments, norm, dropout."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..shapes import Ids, States
from .dropout import Dropout
from .norms import Norm, make_norm
from .positions import sinusoid

TABLE = 1024  # rows of the sinusoid kept ready; longer texts compute theirs


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    vocab_size: int
    d_model: int
    positions: Literal["sinusoid", "halves", "learned", "none"] = "sinusoid"
    max_positions: int = TABLE  # of learned ones
    offset: int = 0  # rows of the learned table before that of position 0 (BART, RoBERTa: 2)
    segments: int = 0  # kinds of text in one row, each with a vector of its own (BERT, BigBird)
    scale: float = 1.0
    norm: Norm | None = None  # on the sum (BERT, BART)
    norm_eps: float = 1e-5
    still: int | None = None  # an id whose vector is not learned (Marian, BART: padding)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.max_positions < 1 or self.offset < 0 or self.segments < 0:
            raise ConfigError(
                f"max_positions {self.max_positions}, offset {self.offset}, segments {self.segments}",
                fix="max_positions must be at least 1, the others at least 0",
            )


class Embed(nn.Module):
    """x[b, t] = norm(scale · token[ids[b, t]] + position[t] + segment[b, t]): (B, T) -> (B, T, C)."""

    def __init__(self, config: EmbedConfig) -> None:
        super().__init__()
        V, C, learned = config.vocab_size, config.d_model, config.positions == "learned"
        self.token = nn.Embedding(V, C, padding_idx=config.still)
        nn.init.normal_(self.token.weight, std=C**-0.5)
        if config.still is not None:
            nn.init.zeros_(self.token.weight.data[config.still])
        self.position = nn.Embedding(config.max_positions + config.offset, C) if learned else None
        self.segment = nn.Embedding(config.segments, C) if config.segments else None
        for table in (self.position, self.segment):
            if table is not None:
                nn.init.normal_(table.weight, std=C**-0.5)
        halves = config.positions == "halves"
        wave = (
            sinusoid(TABLE, C, halves=halves) if halves or config.positions == "sinusoid" else None
        )
        self.register_buffer("wave", wave, persistent=False)
        self.norm = (
            None if config.norm is None else make_norm(config.norm, C, config.norm_eps, True)
        )
        self.halves, self.offset, self.scale = halves, config.offset, config.scale
        self.drop = Dropout(config.dropout)

    def forward(self, ids: Ids, at: int | Tensor = 0, segment: Tensor | None = None) -> States:
        """`at`: the position of the first column, or (B, T) the position of every token.  segment (B, T), None: all 0."""
        x: Tensor = self.token(ids) * self.scale
        if self.position is not None:
            here = (
                torch.arange(at, at + ids.shape[1], device=ids.device)
                if isinstance(at, int)
                else at
            )
            x = x + self.position(self.within(here + self.offset))
        elif self.wave is not None:
            x = x + self.waves(at, ids.shape[1])
        if self.segment is not None:
            x = x + (self.segment.weight[0] if segment is None else self.segment(segment))
        x = x if self.norm is None else self.norm(x)
        dropped: Tensor = self.drop(x)
        return dropped

    def within(self, here: Tensor) -> Tensor:
        """here itself.  Raises DataError QKV-037 for positions beyond those that were learned; a GPU is not asked."""
        if here.numel() and not here.is_cuda and not torch.compiler.is_compiling():
            last, most = int(here.max()), self.position.num_embeddings  # type: ignore[union-attr]
            if last >= most:
                raise DataError(
                    f"a text of {last + 1 - self.offset} tokens, the model has {most - self.offset} positions",
                    fix="shorten the text, or train with more: model.max_positions",
                    code="QKV-037",
                )
        return here

    def waves(self, at: int | Tensor, T: int) -> Tensor:
        wave: Tensor = self.wave  # type: ignore[assignment]
        end = at + T if isinstance(at, int) else int(at.max()) + 1 if at.numel() else 0
        if end > wave.shape[0]:
            wave = sinusoid(end, wave.shape[1], halves=self.halves).to(wave)
        return wave[at:end] if isinstance(at, int) else wave[at]
