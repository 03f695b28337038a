"""What stands on an encoder's states: one vector for the text, a word for every token, labels."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ..shapes import Keep, Logits, States
from .attention import Attention, AttentionConfig
from .block import ACTIVATIONS, Activation
from .dropout import Dropout
from .patterns import Allowed, Full
from .recurrent import in_sixteens

Pooling = Literal["first", "mean"]  # what stands for a text


class Pooler(nn.Module):
    """tanh(W x_1 + b): one vector for the whole text, (B, S, C) -> (B, C).  Devlin et al. 2019, section 3.1, task 2."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)

    def forward(self, x: States, keep: Keep) -> Tensor:
        (y,) = in_sixteens(self.dense, x[:, 0])
        return y.tanh()


def mean_state(x: States, keep: Keep) -> Tensor:
    """The mean of the real states, (B, S, C) -> (B, C); zeros where there is none."""
    real = keep[..., None].to(x.dtype)
    return (x * real).sum(1) / real.sum(1).clamp(min=1)


class Mean(nn.Module):
    """The mean of the real states, (B, S, C) -> (B, C)."""

    def forward(self, x: States, keep: Keep) -> Tensor:
        return mean_state(x, keep)


class Ends(nn.Module):
    """What a bidirectional RNN knows when it has read the text both ways: [forward state of the last token; backward state
    of the first], (B, S, C) -> (B, C)."""

    def forward(self, x: States, keep: Keep) -> Tensor:
        last = (keep.sum(1) - 1).clamp(min=0)
        forward, _ = x[torch.arange(len(x), device=x.device), last].chunk(2, dim=-1)
        _, backward = x[:, 0].chunk(2, dim=-1)
        return torch.cat([forward, backward], -1)


class Looked(nn.Module):
    """A learned query looks at all states, (B, S, C) -> (B, C).  Yang et al. 2016, section 2.2; Lin et al. 2017."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(config.d_model) * config.d_model**-0.5)
        self.cross = Attention(config)

    def forward(self, x: States, keep: Keep) -> Tensor:
        asked = self.query.to(x.dtype).expand(len(x), 1, -1)  # (C) -> (B, 1, C)
        seen = Allowed.of(Full(), keep, 1)
        found: Tensor = self.cross(self.cross.queries(asked), *self.cross.keys(x), seen)
        return found[:, 0]


class Words(nn.Module):
    """Which word stands here: W norm(act(U x + a)) + b, (…, C) -> (…, V).  Devlin et al. 2019, section 3.1, task 1.

    `out.weight` may be the embedding's (Press & Wolf 2017); b is its own."""

    def __init__(
        self, d_model: int, vocab_size: int, activation: Activation, norm_eps: float
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)
        self.act = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(d_model, eps=norm_eps)
        self.out = nn.Linear(d_model, vocab_size)

    def change(self, x: States) -> States:
        """All but the last product."""
        y: Tensor = self.norm(self.act(self.dense(x)))
        return y

    def forward(self, x: States) -> Logits:
        y: Tensor = self.out(self.change(x))
        return y


class Labels(nn.Module):
    """n numbers of a token or a text: W x + b, or W act(U x + a) + b; (…, C) -> (…, n).

    `dropout` is before W, `first_dropout` before U."""

    def __init__(
        self,
        d_model: int,
        n: int,
        *,
        inner: Activation | None = None,
        dropout: float = 0.0,
        first_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dense = None if inner is None else nn.Linear(d_model, d_model)
        self.act: Callable[[Tensor], Tensor] | None = None if inner is None else ACTIVATIONS[inner]
        self.out = nn.Linear(d_model, n)
        self.first_drop, self.drop = Dropout(first_dropout), Dropout(dropout)

    def change(self, x: Tensor) -> Tensor:
        """All but the last product."""
        if self.dense is not None and self.act is not None:
            x = self.act(self.dense(self.first_drop(x)))
        y: Tensor = self.drop(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.change(x))
        return y
