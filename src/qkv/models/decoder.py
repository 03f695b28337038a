"""A decoder alone: ids -> the next id, after each of them (GPT-2, Llama)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..parts.block import Stack, StackConfig, StackState
from ..parts.embed import Embed, EmbedConfig
from ..shapes import Batch, Keep, Logits, States
from .interface import Memory, Predictions


@dataclass(frozen=True, kw_only=True)
class DecoderEnds:
    """What surrounds the stack, and the special ids."""

    tie: bool = True  # the output's matrix is the embedding's (Press & Wolf 2017)
    bias: bool = False
    bos_id: int | None = None
    eos_id: int = 2
    pad_id: int = 0
    max_positions: int | None = None


class LanguageModel(nn.Module):
    """p(x_t | x_<t) = softmax(head(decoder(embed(x_<t)))).

    A prompt is a source, its answer what follows; both stand in the same `max_positions`."""

    source_rows = 16  # prompts are encoded in sixteens: law 2
    prompted = True  # answers share the positions of their prompts

    def __init__(self, embed: EmbedConfig, stack: StackConfig, ends: DecoderEnds) -> None:
        super().__init__()
        self.embed, self.decoder = Embed(embed), Stack(stack)
        self.head = nn.Linear(embed.d_model, embed.vocab_size, bias=ends.bias)
        if ends.tie:
            self.head.weight = self.embed.token.weight
        self.start_id = ends.eos_id if ends.bos_id is None else ends.bos_id
        self.eos_id, self.pad_id, self.max_positions = ends.eos_id, ends.pad_id, ends.max_positions

    def states(self, ids: Tensor, keep: Keep, group: Tensor | None = None) -> States:
        """(B, T) -> (B, T, C).  Packed documents (`group`) each begin at position 0."""
        if group is None:
            out: States = self.decoder(self.embed(ids), keep)
            return out
        at = restarted(group)
        out = self.decoder(self.embed(ids, at), keep, positions=at, group=group)
        return out

    def encode(self, batch: Batch) -> Memory:
        """The states after each token; the summary is that of the last one."""
        states = self.states(batch.source, batch.keep, batch.group)
        last = batch.keep.sum(1).clamp(min=1) - 1
        return Memory(states, batch.keep, states[torch.arange(len(batch)), last])

    def logits(self, batch: Batch) -> Logits:
        """(B, T, V): at each position those of the token after it."""
        out: Logits = self.head(self.states(batch.source, batch.keep, batch.group))
        return out

    def loss_inputs(
        self, batch: Batch, *, forcing: float = 1.0, rng: torch.Generator | None = None
    ) -> Predictions:
        """The positions of `target_keep`; without a target every next token of the source."""
        target, counts = batch.target, batch.target_keep
        if target is None or counts is None:
            target = batch.source.roll(-1, 1)
            counts = batch.keep & batch.keep.roll(-1, 1)
            counts[:, -1] = False
            if batch.group is not None:
                counts = counts & (batch.group == batch.group.roll(-1, 1))
        states = self.states(batch.source, batch.keep, batch.group)[counts]  # (B, T, C) -> (N, C)
        return Predictions(states, self.head.weight, self.head.bias, target[counts])

    def start(self, batch: Batch) -> StackState:
        """All tokens of the prompts but the last, which is fed first.  Raises nothing for a prompt of one token."""
        x = self.embed(batch.source)
        state = self.decoder.start(len(batch), x, None, None)
        _, state = self.decoder.prompt(x, batch.keep, state)
        lengths = None if state.lengths is None else state.lengths - 1
        return replace(state, length=state.length - 1, lengths=lengths)

    def first(self, batch: Batch) -> Tensor:
        """The last token of every prompt (B): what the first step is fed."""
        last = batch.keep.sum(1) - 1
        return batch.source.gather(1, last[:, None])[:, 0]

    def step(self, ids: Tensor, state: StackState) -> tuple[Logits, StackState]:
        """ids (R) -> logits (R, V) and the next state."""
        at = state.length if state.lengths is None else state.lengths[:, None]
        states, state = self.decoder.step(self.embed(ids[:, None], at), state)
        return self.head(states[:, 0]), state


def restarted(group: Tensor) -> Tensor:
    """Positions (B, T) that begin at 0 where a new document does; group (B, T) changes there."""
    here = torch.arange(group.shape[1], device=group.device).expand_as(group)
    new = torch.ones_like(group, dtype=torch.bool)
    new[:, 1:] = group[:, 1:] != group[:, :-1]
    return here - torch.where(new, here, 0).cummax(1).values
