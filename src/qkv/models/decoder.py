"""A decoder alone: ids -> the next id, after each of them (GPT-2, Llama)."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..parts.block import Stack, StackConfig, StackState
from ..parts.embed import Embed, EmbedConfig
from ..parts.patterns import restarted
from ..parts.product import ROWS, Linear
from ..shapes import Batch, Keep, Logits, States
from .interface import Memory, Predictions, chosen


@dataclass(frozen=True, kw_only=True)
class DecoderEnds:
    """What surrounds the stack, and the special ids."""

    tie: bool = True  # the output's matrix is the embedding's (Press & Wolf 2017)
    head: bool = True  # False: a bare stack, which has states and no logits
    bos_id: int | None = None
    eos_id: int | None = 2  # None: answers end at their limit only
    more_eos: tuple[int, ...] = ()  # other ids that end an answer
    pad_id: int | None = 0  # None: any id stands for padding, nobody looks
    max_positions: int | None = None

    @classmethod
    def of(cls, config: Any) -> Self:
        """From a family's configuration, which has fields of the same names."""
        return cls(
            tie=config.tie,
            head=config.head == "lm",
            bos_id=config.bos_id,
            eos_id=config.eos_id,
            more_eos=config.more_eos,
            pad_id=config.pad_id,
            max_positions=config.max_positions,
        )


NEVER = -1  # stands for an id that a model does not have, or not in its vocabulary


class LanguageModel(nn.Module):
    """p(x_t | x_<t) = softmax(head(decoder(embed(x_<t)))).

    A prompt is a source, its answer what follows; both stand in the same `max_positions`."""

    source_rows = 1  # any number of prompts: `start` fills up short ones
    prompted = True  # answers share the positions of their prompts
    banned: tuple[int, ...] = ()  # every id may come, as in the models that are published

    def __init__(self, embed: EmbedConfig, stack: StackConfig, ends: DecoderEnds) -> None:
        super().__init__()
        self.embed, self.decoder = Embed(embed), Stack(stack)
        V, C = embed.vocab_size, embed.d_model
        self.head = Linear(C, V, bias=False) if ends.head else None
        if self.head is not None and ends.tie:
            self.head.weight = self.embed.token.weight

        def known(i: int | None) -> int:
            return NEVER if i is None or not 0 <= i < V else i

        self.eos_id = known(ends.eos_id)
        self.more_eos = tuple(i for i in ends.more_eos if known(i) != NEVER)
        self.start_id = known(ends.eos_id if ends.bos_id is None else ends.bos_id)
        self.pad_id = max(known(ends.pad_id), 0)
        self.vocab_size, self.max_positions = V, ends.max_positions

    def states(
        self, ids: Tensor, keep: Keep, group: Tensor | None = None, marked: Keep | None = None
    ) -> States:
        """(B, T) -> (B, T, C).  Packed documents (`group`) each begin at position 0."""
        if group is None:
            out: States = self.decoder(self.embed(ids), keep, marked=marked)
            return out
        at = restarted(group)
        out = self.decoder(self.embed(ids, at), keep, positions=at, group=group, marked=marked)
        return out

    def over(self, batch: Batch) -> States:
        """The states of a batch's source."""
        return self.states(batch.source, batch.keep, batch.group, batch.marked)

    def encode(self, batch: Batch) -> Memory:
        """The states after each token; the summary is that of the last one."""
        states = self.over(batch)
        last = batch.keep.sum(1).clamp(min=1) - 1
        return Memory(states, batch.keep, states[torch.arange(len(batch)), last])

    def logits(self, batch: Batch) -> Logits:
        """(B, T, V): at each position those of the token after it."""
        return self.output(self.over(batch))

    def output(self, states: Tensor) -> Tensor:
        """(…, C) -> (…, V).  Raises ConfigError QKV-013 where the checkpoint has no head."""
        out: Tensor = self.headed(states)
        return out

    @property
    def headed(self) -> Linear:
        if self.head is None:
            raise ConfigError(
                "this model has states and no logits: its checkpoint is a bare stack",
                fix="use embed, or load a checkpoint with a language-model head",
                code="QKV-013",
            )
        return self.head

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
        states = self.over(batch)
        states = chosen(states, counts)  # (B, T, C) -> (N, C)
        self.headed.forget()
        return Predictions(states, self.headed.weight, None, chosen(target, counts))

    def start(self, batch: Batch) -> StackState:
        """All tokens of the prompts but the last, which is fed first: a past that is a sum forgets nothing."""
        ids, keep, marked = batch.source, batch.keep, batch.marked
        most = ROWS if self.max_positions is None else min(ROWS, self.max_positions)
        if (short := most - ids.shape[1]) > 0:  # one prompt alone has 16 rows too: law 2
            ids, keep = F.pad(ids, (0, short), value=self.pad_id), F.pad(keep, (0, short))
            marked = None if marked is None else F.pad(marked, (0, short))
        x = self.embed(ids)
        state = self.decoder.start(len(batch), x, None, None)
        last = keep.sum(1, keepdim=True) - 1
        here = torch.arange(keep.shape[1], device=x.device)
        return self.decoder.prompt(x, keep & (here < last), state, marked)[1]

    @property
    def step_rows(self) -> int:
        """The rows of a step come in multiples of this."""
        return self.decoder.step_rows

    def first(self, batch: Batch) -> Tensor:
        """The last token of every prompt (B): what the first step is fed."""
        last = batch.keep.sum(1) - 1
        return batch.source.gather(1, last[:, None])[:, 0]

    def step(self, ids: Tensor, state: StackState) -> tuple[Logits, StackState]:
        """ids (R) -> logits (R, V) and the next state."""
        at = state.length if state.lengths is None else state.lengths[:, None]
        if isinstance(at, Tensor) and self.max_positions is not None:
            at = at.clamp(max=self.max_positions - 1)  # rows that have ended walk on, unheard
        states, state = self.decoder.step(self.embed(ids[:, None], at), state)
        return self.output(states)[:, 0], state
