"""Reader -> memory -> writer -> head: any encoder with any decoder."""

from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UsageError
from ..parts.embed import Embed
from ..parts.product import ROWS, Linear
from ..shapes import Batch, Keep, Logits, States
from .interface import Memory, Predictions

Tie = Literal["all", "target", "inputs", "none"]


class Reader(Protocol):
    """An encoder: embedded source (B, S, C), keep and the user's global tokens, both (B, S) -> Memory."""

    def __call__(self, x: States, keep: Keep, *, marked: Keep | None = None) -> Memory: ...


class Writer(Protocol):
    """A decoder over a memory; `forward` over a whole target equals `step` after `step`."""

    def __call__(self, x: States, keep: Keep, memory: Memory) -> States: ...
    def start(self, memory: Memory) -> Any: ...
    def step(self, x: States, state: Any) -> tuple[States, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Vocabulary, special ids and how the three (V, C) matrices are shared (Press & Wolf 2017)."""

    vocab_size: int
    tie: Tie = "all"  # all: source = target = output; target, inputs: target = output, = source
    head: bool = True  # False: a bare model without an output (published T5 and BART have some)
    scale: float = 1.0  # of the states that the output reads (T5: C ** -0.5)
    bias: bool = False
    fixed_bias: bool = False  # added to the logits and not trained (BART, Marian)
    start_id: int = 1
    eos_id: int = 2
    pad_id: int = 0
    banned: tuple[int, ...] | None = None  # never an answer's; None: padding and the start
    max_positions: int | None = None


class NoHead(nn.Module):
    """What stands in the output's place in a bare model: it says so when asked."""

    def forward(self, states: States) -> NoReturn:
        raise UsageError(
            "this model has no output layer: its checkpoint is a bare one",
            fix="load the checkpoint with its head, or use encode() and states()",
        )


class Translator(nn.Module):
    """A sequence-to-sequence model; its decoder sees the target shifted right by one."""

    source_rows = 1  # any number of sources: parts that mind pad their own rows (in_sixteens)

    def __init__(
        self, source: Embed, target: Embed, reader: nn.Module, writer: nn.Module, ends: Ends
    ) -> None:
        super().__init__()
        self.source_embed, self.target_embed = source, target
        if ends.tie in ("all", "inputs"):
            self.source_embed.token = target.token
        self.encoder, self.decoder = reader, writer
        self.head = self.output(ends) if ends.head else NoHead()
        self.scale = ends.scale
        self.start_id, self.eos_id, self.pad_id = ends.start_id, ends.eos_id, ends.pad_id
        marks = {ends.pad_id, ends.start_id} - {ends.eos_id}
        self.banned = tuple(sorted(marks)) if ends.banned is None else ends.banned
        self.max_positions = ends.max_positions

    def output(self, ends: Ends) -> Linear:
        V, C = self.target_embed.token.weight.shape
        head = Linear(C, V, bias=ends.bias)
        nn.init.normal_(head.weight, std=C**-0.5)
        if ends.tie in ("all", "target"):
            head.weight = self.target_embed.token.weight
        if ends.fixed_bias:
            fix_bias(head)
        return head

    def encode(self, batch: Batch) -> Memory:
        x = self.source_embed(batch.source)
        memory: Memory = self.encoder(x, batch.keep, marked=batch.marked)
        return memory

    def start(self, batch: Batch) -> Any:
        first_token(self.start_id, self.target_embed)
        return self.decoder.start(self.encode(batch))  # type: ignore[operator]

    def step(self, ids: Tensor, state: Any) -> tuple[Logits, Any]:
        """ids (R) -> logits (R, V) and the next state."""
        x = self.target_embed(ids[:, None], state.length)
        states, state = self.decoder.step(x, state)  # type: ignore[operator]
        return self.head(self.scaled(states))[:, 0], state

    @property
    def step_rows(self) -> int:
        """The rows of a step come in multiples of this."""
        return int(getattr(self.decoder, "step_rows", ROWS))

    def shift(self, target: Tensor) -> Tensor:
        """What the decoder is fed when it must predict the target."""
        return shifted(target, first_token(self.start_id, self.target_embed))

    def states(self, batch: Batch, fed: Tensor, memory: Memory) -> States:
        """Decoder states (B, T, C) when `fed` (B, T) are its inputs, as the output reads them."""
        return self.scaled(self.decoder(self.target_embed(fed), batch.target_keep, memory))

    def scaled(self, states: States) -> States:
        return states if self.scale == 1 else states * self.scale

    def logits(self, batch: Batch) -> Logits:
        if batch.target is None:
            raise ValueError("logits need a target")
        out: Logits = self.head(self.states(batch, self.shift(batch.target), self.encode(batch)))
        return out

    def loss_inputs(
        self, batch: Batch, *, forcing: float = 1.0, rng: torch.Generator | None = None
    ) -> Predictions:
        if batch.target is None or batch.target_keep is None:
            raise ValueError("a loss needs a target")
        memory, fed = self.encode(batch), self.shift(batch.target)
        if forcing < 1:
            fed = self.guessed(batch, fed, memory, forcing, rng)
        keep = batch.target_keep
        states = self.states(batch, fed, memory)[keep]  # (B, T, C) -> (N, C)
        if not isinstance(self.head, Linear):
            return self.head(states)  # type: ignore[no-any-return]  # raises
        self.head.forget()
        return Predictions(states, self.head.weight, self.head.bias, batch.target[keep])

    @torch.no_grad()
    def guessed(
        self,
        batch: Batch,
        fed: Tensor,
        memory: Memory,
        forcing: float,
        rng: torch.Generator | None,
    ) -> Tensor:
        """`fed` with a share 1 - forcing of its tokens replaced by the model's own guesses, in one parallel
        pass instead of T sequential ones (Mihaylova & Martins 2019, section 3)."""
        guess = self.head(self.states(batch, fed, memory)).argmax(-1)  # (B, T)
        guess = torch.cat([fed[:, :1], guess[:, :-1]], dim=1)
        own = torch.rand(fed.shape, generator=rng) >= forcing
        own[:, 0] = False
        return torch.where(own.to(fed.device), guess, fed)


def first_token(start_id: int, embed: Embed) -> int:
    """What the decoder is fed first.  Raises ConfigError QKV-013 for an id without a vector, which published files may name."""
    V = embed.token.num_embeddings
    if not 0 <= start_id < V:
        raise ConfigError(
            f"decoder_start_token_id = {start_id}, and the vocabulary has {V} ids",
            fix="correct it in config.json or generation_config.json",
            code="QKV-013",
        )
    return start_id


def shifted(target: Tensor, start_id: int) -> Tensor:
    """y1 … yT -> start y1 … yT-1: (B, T) -> (B, T)."""
    start = target.new_full((target.shape[0], 1), start_id)
    return torch.cat([start, target[:, :-1]], dim=1)


def fix_bias(head: nn.Linear) -> None:
    """Give a linear layer a bias of zeros that is stored and not trained."""
    head.register_parameter("bias", None)
    del head.bias
    head.register_buffer("bias", torch.zeros(head.out_features))
