"""Performer (Choromanski et al. 2021): attention by random features (FAVOR+), of a cost linear in length.

A pre-norm encoder with a head, or with head = "lm" a decoder.  Its attention approximates the softmax's; there are no
published weights.  `exact` gives the same net with the softmax itself, so that the two can be compared, or weights that
were learned with one used with the other (section 4.2)."""

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import ConfigError
from ..parts import favor
from ..parts.block import Activation, Stack, StackConfig
from ..parts.embed import EmbedConfig
from ..parts.heads import Pooler, Pooling
from ..parts.positions import Rotary
from .decoder import DecoderEnds, LanguageModel
from .encoder import HeadConfig, HeadKind, Problem, TextEncoder
from .gpt2 import begin

SIZES = {
    "tiny": dict(n_layers=2, d_model=64, n_heads=2, d_ff=128, features=64),
    "small": dict(n_layers=4, d_model=256, n_heads=4, d_ff=1024),
    "base": dict(n_layers=6, d_model=512, n_heads=8, d_ff=2048),  # the paper's appendix A.3
}
Task = HeadKind | Literal["lm"]
Positions = Literal["learned", "sinusoid", "rotary", "none"]


@dataclass(frozen=True, kw_only=True)
class PerformerConfig:
    head: Task = "lm"  # lm: a decoder, nobody looks ahead; every other: an encoder
    labels: tuple[str, ...] = ()  # names of classes or tags, by id
    problem: Problem = "one"
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 512
    n_layers: int = 6
    n_heads: int = 8
    d_ff: int | None = None  # None: 4 x d_model
    positions: Positions = "learned"
    max_positions: int = 4096  # of learned ones
    activation: Activation = "gelu"
    features: int = 0  # random features of a head; 0: D ln D, rounded up to a multiple of 16
    redraw: int = 0  # training steps between two draws of the features; 0: one draw for ever
    features_seed: int = 0  # of the first draw
    exact: bool = False  # the softmax itself
    pooling: Pooling = "first"  # what stands for a text
    norm_eps: float = 1e-5
    tie: bool = True
    dropout: float = 0.1
    head_dropout: float | None = None  # None: as dropout
    bos_id: int | None = None
    eos_id: int | None = 2
    more_eos: tuple[int, ...] = ()
    pad_id: int | None = 0

    def __post_init__(self) -> None:
        if self.exact and self.redraw:
            raise ConfigError(
                f"exact attention has no features to redraw every {self.redraw} steps",
                fix="redraw = 0, or exact = false",
                code="QKV-013",
            )
        self.stack()
        self.headed()

    @property
    def causal(self) -> bool:
        return self.head == "lm"

    def stack(self) -> StackConfig:
        drawn = favor.Features(count=self.features, redraw=self.redraw, seed=self.features_seed)
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            causal=self.causal,
            norm_first=True,
            final_norm=True,
            norm_eps=self.norm_eps,
            activation=self.activation,
            relative=Rotary() if self.positions == "rotary" else None,
            dropout=self.dropout,
            features=None if self.exact else drawn,
        )

    def embedded(self) -> EmbedConfig:
        return EmbedConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            positions="none" if self.positions == "rotary" else self.positions,
            max_positions=self.max_positions,
            segments=0 if self.causal else 2,
            dropout=self.dropout,
        )

    def headed(self) -> HeadConfig:
        kind: HeadKind = "none" if self.head == "lm" else self.head
        return HeadConfig(
            kind=kind,
            n_labels=len(self.labels),
            problem=self.problem,
            dropout=self.dropout if self.head_dropout is None else self.head_dropout,
            norm_eps=self.norm_eps,
            tie=self.tie,
        )


def build(config: PerformerConfig) -> LanguageModel | TextEncoder:
    net: LanguageModel | TextEncoder
    if config.causal:
        ends = DecoderEnds.of(config)
        reach = config.max_positions if config.positions == "learned" else None
        net = LanguageModel(config.embedded(), config.stack(), replace(ends, max_positions=reach))
    else:
        net = TextEncoder(
            config.embedded(),
            Stack(config.stack()),
            Pooler(config.d_model),
            config.headed(),
            pooling=config.pooling,
            pad_id=max(config.pad_id or 0, 0),
        )
    begin(net, config.n_layers)
    favor.draw_all(net, config.features_seed)
    return net
