"""Recurrent sequence to sequence, with and without attention.

Without attention one vector holds the sentence: the decoder starts from it (Sutskever et al. 2014), and with context =
"every" reads it again at every step (Cho et al. 2014, section 2.2).  With attention each state looks back at all encoder states, and what it found is fed to the
next step (Bahdanau et al. 2015; Luong et al. 2015, sections 3.1 and 3.3).  With `encoder_heads` the source is read by a
Transformer encoder instead."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts.attention import Attention, AttentionConfig
from ..parts.block import StackConfig
from ..parts.dropout import Dropout
from ..parts.embed import Embed, EmbedConfig
from ..parts.patterns import Allowed, Full
from ..parts.recurrent import RNN_ACTIVATIONS, Cell, CellKind, Hidden, Recurrent, in_sixteens
from ..parts.scores import Score
from ..shapes import Keep, States
from .interface import Memory
from .seq2seq import Ends, Tie, Translator

SIZES = {
    "tiny": dict(d_model=128, encoder_layers=1, decoder_layers=1),
    "small": dict(d_model=256, encoder_layers=1, decoder_layers=1),
    "base": dict(d_model=512, encoder_layers=2, decoder_layers=2),
}


@dataclass(frozen=True, kw_only=True)
class RnnConfig:
    vocab_size: int = 0  # 0: taken from the tokenizer
    cell: CellKind = "gru"
    activation: str = "tanh"  # of the plain rnn cell: tanh, relu or sigmoid
    d_model: int = 256
    encoder_layers: int = 1
    decoder_layers: int = 1
    bidirectional: bool = True
    attention: bool = True
    context: Literal["start", "every"] = (
        "start"  # without attention: when the decoder reads the source's vector
    )
    score: Score = "general"
    n_heads: int = 1
    tie: Tie = "target"
    dropout: float = 0.2
    encoder_heads: int | None = None  # None: a recurrent encoder.  n: self-attention with n heads

    def __post_init__(self) -> None:
        if self.activation not in RNN_ACTIVATIONS:
            raise ConfigError(
                f"activation = {self.activation!r}", fix=f"one of {', '.join(RNN_ACTIVATIONS)}"
            )
        if self.bidirectional and self.d_model % 2:
            raise ConfigError(
                f"d_model {self.d_model} is odd",
                fix="a bidirectional encoder needs an even d_model",
                code="QKV-013",
            )
        for name in ("d_model", "encoder_layers", "decoder_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1 (got {getattr(self, name)})", fix=f"try {name}=1"
                )
        if self.attention and self.context == "every":
            raise ConfigError(
                'context = "every" with attention, which reads the source itself',
                fix="attention = false, or leave context out",
                code="QKV-013",
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                f"dropout must be in [0, 1) (got {self.dropout})", fix="try dropout=0.2"
            )


class RnnReader(nn.Module):
    """Reads the source token by token; its summary is the last state."""

    def __init__(
        self,
        kind: CellKind,
        d_model: int,
        n_layers: int,
        dropout: float,
        bidirectional: bool = True,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.layers = Recurrent(
            kind,
            d_model,
            d_model,
            n_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            activation=activation,
        )

    def forward(self, x: States, keep: Keep, *, marked: None = None) -> Memory:
        if marked is not None:
            raise ConfigError("a recurrent encoder has no global tokens", fix="mark none")
        states, last = in_sixteens(self.layers, x, keep)
        return Memory(states, keep, last)


@dataclass(frozen=True)
class WriterState:
    """Hidden states of all layers, what was fed back, and the memory's keys and values."""

    hidden: tuple[Hidden, ...]
    feed: Tensor | None  # (R, C): what attention found at the last step, or the source's vector
    keys: tuple[Tensor, Tensor] | None
    memory_keep: Keep
    length: int = 0

    def reorder(self, rows: Tensor) -> "WriterState":
        def pick(x: Tensor) -> Tensor:
            return x.index_select(0, rows)

        return replace(
            self,
            hidden=tuple(h.reorder(rows) for h in self.hidden),
            feed=None if self.feed is None else pick(self.feed),
            keys=None if self.keys is None else (pick(self.keys[0]), pick(self.keys[1])),
            memory_keep=pick(self.memory_keep),
        )


class RnnWriter(nn.Module):
    """x_t, what was found at t-1 -> cells -> h_t;  found = tanh(W [h_t; attention(h_t, memory)]).

    Without attention, context = "every": x_t and the source's vector c -> cells -> h_t;  out = tanh(W [h_t; c])."""

    def __init__(self, config: RnnConfig) -> None:
        super().__init__()
        C, kind = config.d_model, config.cell
        self.every = config.context == "every"
        d_in = 2 * C if config.attention or self.every else C
        self.cells = nn.ModuleList(
            Cell(kind, d_in if n == 0 else C, C, config.activation)
            for n in range(config.decoder_layers)
        )
        states = 2 if kind == "lstm" else 1
        self.bridge = nn.Linear(C, C * states * config.decoder_layers)
        self.cross = (
            Attention(AttentionConfig(d_model=C, n_heads=config.n_heads, score=config.score))
            if config.attention
            else None
        )
        self.combine = nn.Linear(d_in, C)
        self.drop = Dropout(config.dropout)

    def start(self, memory: Memory) -> WriterState:
        """All layers begin at h = tanh(W summary), the cell of an LSTM at W' summary."""
        begun = in_sixteens(self.bridge, memory.summary)[0].chunk(len(self.cells), dim=-1)
        cells: list[Cell] = list(self.cells)  # type: ignore[arg-type]
        hidden = tuple(
            Hidden(*(half(x) if cell.kind == "lstm" else (x.tanh(), None)))
            for cell, x in zip(cells, begun, strict=True)
        )
        if self.cross is None:
            return WriterState(hidden, memory.summary if self.every else None, None, memory.keep)
        feed = torch.zeros_like(hidden[0].h)
        return WriterState(hidden, feed, self.cross.keys(memory.states), memory.keep)

    def step(self, x: States, state: WriterState) -> tuple[States, WriterState]:
        """One token per row: x (R, 1, C) -> (R, 1, C)."""
        seen = Allowed(Full(), state.memory_keep, torch.zeros(1, dtype=torch.long, device=x.device))
        out, state = self.advance(x[:, 0], state, seen)
        return out[:, None], state

    def advance(self, x: Tensor, state: WriterState, seen: Allowed) -> tuple[Tensor, WriterState]:
        h = x if state.feed is None else torch.cat([x, state.feed], dim=-1)
        hidden = []
        cells: list[Cell] = list(self.cells)  # type: ignore[arg-type]
        for n, (cell, old) in enumerate(zip(cells, state.hidden, strict=True)):
            h = self.drop(h) if n else h
            hidden.append(cell(cell.enter(h), old))
            h = hidden[-1].h
        feed = state.feed
        if self.cross is not None and state.keys is not None:
            q = self.cross.queries(h[:, None])
            found = self.cross(q, *state.keys, seen)[:, 0]  # (R, C)
            out = feed = self.combine(torch.cat([h, found], dim=-1)).tanh()
        else:
            out = self.combine(h if feed is None else torch.cat([h, feed], dim=-1)).tanh()
        return out, replace(state, hidden=tuple(hidden), feed=feed, length=state.length + 1)

    def forward(self, x: States, keep: Keep, memory: Memory) -> States:
        state, outs = self.start(memory), []
        seen = Allowed(Full(), memory.keep, torch.zeros(1, dtype=torch.long, device=x.device))
        for column in x.unbind(1):
            out, state = self.advance(column, state, seen)
            outs.append(out)
        dropped: States = self.drop(torch.stack(outs, dim=1))
        return dropped


def half(x: Tensor) -> tuple[Tensor, Tensor]:
    """What an LSTM begins with: h = tanh of the first half, and the cell as the second is."""
    h, c = x.chunk(2, dim=-1)
    return h.tanh(), c


def build(config: RnnConfig) -> Translator:
    C = config.d_model
    if config.encoder_heads is None:
        reader: nn.Module = RnnReader(
            config.cell,
            C,
            config.encoder_layers,
            config.dropout,
            config.bidirectional,
            config.activation,
        )
    else:
        from .transformer import TransformerReader

        reader = TransformerReader(
            StackConfig(
                n_layers=config.encoder_layers,
                d_model=C,
                n_heads=config.encoder_heads,
                d_ff=4 * C,
                dropout=config.dropout,
            )
        )

    positions: Literal["sinusoid", "none"] = "none" if config.encoder_heads is None else "sinusoid"

    def embed(positions: Literal["sinusoid", "none"]) -> Embed:
        return Embed(
            EmbedConfig(
                vocab_size=config.vocab_size,
                d_model=C,
                positions=positions,
                scale=C**0.5,
                dropout=config.dropout,
            )
        )

    ends = Ends(vocab_size=config.vocab_size, tie=config.tie, bias=True)
    return Translator(embed(positions), embed("none"), reader, RnnWriter(config), ends)
