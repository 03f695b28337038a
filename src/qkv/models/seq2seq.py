"""Reader -> memory -> writer -> head: any encoder with any decoder."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..parts.embed import Embed
from ..shapes import Batch, Keep, Logits, States
from .interface import Memory, Predictions

Tie = Literal["all", "target", "none"]


class Reader(Protocol):
    """An encoder: embedded source (B, S, C) and keep -> Memory."""

    def __call__(self, x: States, keep: Keep) -> Memory: ...


class Writer(Protocol):
    """A decoder over a memory; `forward` over a whole target equals `step` after `step`."""

    def __call__(self, x: States, keep: Keep, memory: Memory) -> States: ...
    def start(self, memory: Memory) -> Any: ...
    def step(self, x: States, state: Any) -> tuple[States, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Vocabulary, special ids and how the three (V, C) matrices are shared (Press & Wolf 2017)."""

    vocab_size: int
    tie: Tie = "all"  # all: source = target = output; target: target = output
    bias: bool = False
    start_id: int = 1
    eos_id: int = 2
    pad_id: int = 0
    max_positions: int | None = None


class Translator(nn.Module):
    """A sequence-to-sequence model; its decoder sees the target shifted right by one."""

    source_rows = 1  # any number of sources: parts that mind pad their own rows (in_sixteens)

    def __init__(
        self, source: Embed, target: Embed, reader: nn.Module, writer: nn.Module, ends: Ends
    ) -> None:
        super().__init__()
        self.source_embed, self.target_embed = source, target
        if ends.tie == "all":
            self.source_embed.token = target.token
        self.encoder, self.decoder = reader, writer
        V, C = target.token.weight.shape
        self.head = nn.Linear(C, V, bias=ends.bias)
        nn.init.normal_(self.head.weight, std=C**-0.5)
        if ends.tie != "none":
            self.head.weight = target.token.weight
        self.start_id, self.eos_id, self.pad_id = ends.start_id, ends.eos_id, ends.pad_id
        self.max_positions = ends.max_positions

    def encode(self, batch: Batch) -> Memory:
        memory: Memory = self.encoder(self.source_embed(batch.source), batch.keep)
        return memory

    def start(self, batch: Batch) -> Any:
        return self.decoder.start(self.encode(batch))  # type: ignore[operator]

    def step(self, ids: Tensor, state: Any) -> tuple[Logits, Any]:
        """ids (R) -> logits (R, V) and the next state."""
        x = self.target_embed(ids[:, None], state.length)
        states, state = self.decoder.step(x, state)  # type: ignore[operator]
        return self.head(states[:, 0]), state

    def shift(self, target: Tensor) -> Tensor:
        """y1 … yT -> start y1 … yT-1: what the decoder is fed when it must predict y1 … yT."""
        start = target.new_full((target.shape[0], 1), self.start_id)
        return torch.cat([start, target[:, :-1]], dim=1)

    def states(self, batch: Batch, fed: Tensor, memory: Memory) -> States:
        """Decoder states (B, T, C) when `fed` (B, T) are its inputs."""
        states: States = self.decoder(self.target_embed(fed), batch.target_keep, memory)
        return states

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
