"""A recurrent encoder alone, with a head: the classifier of texts before there was attention, and with it.

Without attention the text is what the two directions know at their ends; with it a learned query looks back at all states
(Yang et al. 2016, section 2.2)."""

from dataclasses import dataclass

from torch import nn

from ..errors import ConfigError
from ..parts.attention import AttentionConfig
from ..parts.embed import EmbedConfig
from ..parts.heads import Ends, Looked
from ..parts.recurrent import RNN_ACTIVATIONS, CellKind, Recurrent, in_sixteens
from ..parts.scores import Score
from ..shapes import Keep, States
from .encoder import HeadConfig, HeadKind, Problem, TextEncoder

SIZES = {
    "tiny": dict(d_model=128),
    "small": dict(d_model=256),
    "base": dict(d_model=512, n_layers=2),
}


@dataclass(frozen=True, kw_only=True)
class RnnEncoderConfig:
    vocab_size: int = 0  # 0: taken from the tokenizer
    cell: CellKind = "lstm"
    activation: str = "tanh"  # of the plain rnn cell: tanh, relu or sigmoid
    d_model: int = 256
    n_layers: int = 1
    attention: bool = True
    score: Score = "additive"
    n_heads: int = 1
    head: HeadKind = "classes"
    labels: tuple[str, ...] = ("0", "1")
    problem: Problem = "one"
    dropout: float = 0.2
    pad_id: int = 0

    def __post_init__(self) -> None:
        if self.activation not in RNN_ACTIVATIONS:
            raise ConfigError(
                f"activation = {self.activation!r}", fix=f"one of {', '.join(RNN_ACTIVATIONS)}"
            )
        if self.d_model % 2 or self.d_model < 2 or self.n_layers < 1:
            raise ConfigError(
                f"d_model {self.d_model}, n_layers {self.n_layers}",
                fix="two directions need an even d_model, and at least one layer",
                code="QKV-013",
            )
        self.headed()

    def headed(self) -> HeadConfig:
        return HeadConfig(
            kind=self.head, n_labels=len(self.labels), problem=self.problem, dropout=self.dropout
        )


class Reader(nn.Module):
    """Both directions' states: (B, S, C) -> (B, S, C)."""

    def __init__(self, config: RnnEncoderConfig) -> None:
        super().__init__()
        self.layers = Recurrent(
            config.cell,
            config.d_model,
            config.d_model,
            config.n_layers,
            bidirectional=True,
            dropout=config.dropout,
            activation=config.activation,
        )

    def forward(self, x: States, keep: Keep, *, group: None = None, marked: None = None) -> States:
        if group is not None:
            raise ConfigError("a recurrent encoder reads one text a row", fix="do not pack")
        if marked is not None:
            raise ConfigError("a recurrent encoder has no global tokens", fix="mark none")
        states, _ = in_sixteens(self.layers, x, keep)
        return states


def build(config: RnnEncoderConfig) -> TextEncoder:
    C = config.d_model
    embed = EmbedConfig(
        vocab_size=config.vocab_size,
        d_model=C,
        positions="none",
        scale=C**0.5,
        dropout=config.dropout,
    )
    looked = AttentionConfig(d_model=C, n_heads=config.n_heads, score=config.score)
    pooler = Looked(looked) if config.attention else Ends()
    return TextEncoder(embed, Reader(config), pooler, config.headed(), pad_id=config.pad_id)
