"""The encoder-decoder Transformer (Vaswani et al. 2017).

Embeddings × √C plus sinusoids, post-norm, relu, the three vocabulary matrices tied.  With `encoder_cell` the source is
read by an RNN instead and only the decoder is a Transformer."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ..errors import ConfigError
from ..parts.block import Activation, Stack, StackConfig, StackState
from ..parts.dropout import Dropout
from ..parts.embed import Embed, EmbedConfig
from ..parts.norms import Norm
from ..parts.positions import Alibi, Rotary
from ..parts.recurrent import CellKind
from ..shapes import Keep, States
from .interface import Memory
from .seq2seq import Ends, Tie, Translator

RELATIVE: dict[str, Rotary | Alibi] = {"rotary": Rotary(), "alibi": Alibi()}
SIZES = {
    "tiny": dict(encoder_layers=4, decoder_layers=4, d_model=128, n_heads=4, d_ff=256),
    "small": dict(encoder_layers=3, decoder_layers=3, d_model=256, n_heads=4, d_ff=1024),
    "base": dict(encoder_layers=6, decoder_layers=6, d_model=512, n_heads=8, d_ff=2048),
}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 256
    n_heads: int = 4
    n_kv_heads: int | None = None
    d_ff: int = 1024
    encoder_layers: int = 3
    decoder_layers: int = 3
    norm: Norm = "layer"
    norm_first: bool = False
    activation: Activation = "relu"
    gated: bool = False
    positions: Literal["sinusoid", "learned", "rotary", "alibi", "none"] = "sinusoid"
    max_positions: int = 1024
    window: int | None = None  # self-attention of encoder and decoder reaches this far
    pattern: str | None = None  # who sees whom in both: "window(256) | global(1)"
    tie: Tie = "all"
    dropout: float = 0.1
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    encoder_cell: CellKind | None = (
        None  # None: self-attention.  rnn, lstm, gru: a recurrent encoder
    )

    def __post_init__(self) -> None:
        if self.encoder_cell and self.d_model % 2:
            raise ConfigError(
                f"d_model {self.d_model} is odd",
                fix="a bidirectional encoder needs an even d_model",
                code="QKV-013",
            )
        self.stack(decoder=True)

    def stack(self, *, decoder: bool) -> StackConfig:
        n_layers = self.decoder_layers if decoder else self.encoder_layers
        return StackConfig(
            n_layers=n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_ff=self.d_ff,
            d_memory=self.d_model if decoder else None,
            causal=decoder,
            windows=(self.window,) * n_layers,
            pattern=self.pattern,
            norm=self.norm,
            norm_first=self.norm_first,
            final_norm=self.norm_first,
            activation=self.activation,
            gated=self.gated,
            relative=RELATIVE.get(self.positions),
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
            ff_dropout=self.ff_dropout,
        )

    def embed(self) -> EmbedConfig:
        return EmbedConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            positions=self.positions if self.positions in ("sinusoid", "learned") else "none",
            max_positions=self.max_positions,
            scale=self.d_model**0.5,
            dropout=self.dropout,
        )


class TransformerReader(nn.Module):
    """A stack that sees the whole source; `dropout` falls on what it returns (T5)."""

    def __init__(self, config: StackConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.stack, self.drop = Stack(config), Dropout(dropout)

    def forward(self, x: States, keep: Keep, *, marked: Keep | None = None) -> Memory:
        states = self.drop(self.stack(x, keep, marked=marked))
        real = keep[..., None].to(states.dtype)
        mean = (states * real).sum(1) / real.sum(1).clamp(min=1)
        return Memory(states, keep, mean)


class TransformerWriter(nn.Module):
    """A causal stack that also looks at the memory; `dropout` falls on what it returns (T5)."""

    def __init__(self, config: StackConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.stack, self.drop = Stack(config), Dropout(dropout)

    def forward(self, x: States, keep: Keep, memory: Memory) -> States:
        states = self.stack(x, keep, memory=memory.states, memory_keep=memory.keep)
        dropped: States = self.drop(states)
        return dropped

    @property
    def step_rows(self) -> int:
        return self.stack.step_rows

    def start(self, memory: Memory) -> StackState:
        rows = memory.states.shape[0]
        return self.stack.start(rows, memory.states, memory.states, memory.keep)

    def step(self, x: States, state: StackState) -> tuple[States, StackState]:
        return self.stack.step(x, state)


def build(config: TransformerConfig) -> Translator:
    if config.encoder_cell is None:
        reader: nn.Module = TransformerReader(config.stack(decoder=False))
    else:
        from .rnn import RnnReader

        C = config.d_model
        reader = RnnReader(config.encoder_cell, C, config.encoder_layers, config.dropout)
    ends = Ends(
        vocab_size=config.vocab_size,
        tie=config.tie,
        max_positions=config.max_positions if config.positions == "learned" else None,
    )
    net = Translator(
        Embed(config.embed()),
        Embed(config.embed()),
        reader,
        TransformerWriter(config.stack(decoder=True)),
        ends,
    )
    for side in (net.encoder, net.decoder):
        if isinstance(side, (TransformerReader, TransformerWriter)):
            begin(side.stack)
    return net


def begin(stack: Stack) -> None:
    """Xavier weights, those on the way into a post-norm residual scaled by β (Wang et al. 2022, "DeepNet", table 2).

    With gain 1 the encoder's states begin nearly alike and the decoder learns to ignore them (docs/diary.md)."""
    n = stack.config.n_layers
    beta = 1.0 if stack.config.norm_first else (8 * n) ** -0.25
    for name, module in stack.named_modules():
        if isinstance(module, nn.Linear):
            inward = name.rsplit(".", 1)[-1] in ("v", "o", "up", "down", "gate")
            nn.init.xavier_uniform_(module.weight, gain=beta if inward else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
