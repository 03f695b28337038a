"""An encoder alone: ids -> a state for each token, and a head that answers from them (BERT and its kin)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..parts.block import Activation
from ..parts.embed import Embed, EmbedConfig
from ..parts.heads import Labels, Mean, Pooling, Words
from ..parts.patterns import restarted
from ..parts.recurrent import in_sixteens
from ..shapes import Batch, States
from .interface import Choices, Memory, Predictions, Term, Values

HeadKind = Literal["none", "mlm", "nsp", "pretraining", "classes", "tags", "span"]
Problem = Literal["one", "many", "value"]
WORDS = ("mlm", "pretraining")
# what the labels of a kind are called among a net's tensors: another kind never takes them for its own
LABELS = {
    "nsp": "next",
    "pretraining": "next",
    "classes": "classes",
    "tags": "tags",
    "span": "span",
}
OF_TOKENS = ("tags", "span")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """mlm: the word at each token.  nsp: does text B follow A (0) or not (1).  pretraining: both.
    classes: labels of a text or a pair.  tags: labels of each token.  span: the ends of an answer."""

    kind: HeadKind = "none"
    n_labels: int = 0  # of classes and tags
    problem: Problem = (
        "one"  # of classes: one is right, each may be, or they are numbers to be near
    )
    inner: Activation | None = None  # classes: a layer before the last
    dropout: float = 0.0
    first_dropout: float = 0.0  # before the inner layer
    activation: Activation = "gelu"  # of the word head
    norm_eps: float = 1e-12
    tie: bool = True  # the word head's matrix is the embedding's

    def __post_init__(self) -> None:
        if self.kind in ("classes", "tags") and self.n_labels < 1:
            raise ConfigError(
                f"head = {self.kind!r} with {self.n_labels} labels",
                fix='name them: labels = ["negative", "positive"]',
                code="QKV-013",
            )

    @property
    def outputs(self) -> int:
        return self.n_labels if self.kind in ("classes", "tags") else 2


class Head(nn.Module):
    """`words` and `labels`, as far as the kind has them."""

    def __init__(self, config: HeadConfig, token: nn.Embedding) -> None:
        super().__init__()
        self.kind, self.problem = config.kind, config.problem
        V, C = token.weight.shape
        if config.kind in WORDS:
            self.words = Words(C, V, config.activation, config.norm_eps)
            if config.tie:
                self.words.out.weight = token.weight
        if config.kind in LABELS:
            made = Labels(
                C,
                config.outputs,
                inner=config.inner,
                dropout=config.dropout,
                first_dropout=config.first_dropout,
            )
            self.add_module(LABELS[config.kind], made)

    @property
    def labels(self) -> Labels:
        found = getattr(self, LABELS[self.kind])
        return found  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """head(encoder(embed(ids))).

    `encoder(x, keep, group=…, marked=…)` gives a state for each token, `pooler(states, keep)` one for the text (None: that of the
    first token; with `pooling = "mean"` it is the mean of all instead).  Learned positions end at `max_positions`; with `counted`
    they count the ids that are not that one, which itself has the row before position 0 (RoBERTa, Longformer).  `prepare` fills in
    what a batch does not say and the family derives from its ids (global tokens, segments); `barred(batch)` (B, S) is taken from the
    scores of tokens where no answer may stand."""

    source_rows = 16

    def __init__(
        self,
        embed: EmbedConfig,
        encoder: nn.Module,
        pooler: nn.Module | None,
        head: HeadConfig,
        *,
        pooling: Pooling = "first",
        pad_id: int = 0,
        counted: int | None = None,
        prepare: Callable[[Batch], Batch] | None = None,
        barred: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.embed, self.encoder = Embed(embed), encoder
        self.pooler = Mean() if pooling == "mean" else pooler
        self.prepare, self.barred = prepare, barred
        self.head = Head(head, self.embed.token)
        self.pad_id, self.counted = pad_id, counted
        self.max_positions = embed.max_positions if embed.positions == "learned" else None

    def places(self, batch: Batch) -> int | Tensor:
        """The position of every token.  Raises DataError QKV-037 for a text longer than the positions go."""
        S, most = batch.source.shape[1], self.max_positions
        if most is not None and S > most and bool(batch.keep[:, most:].any()):
            raise DataError(
                f"a text of {int(batch.keep.sum(1).max())} tokens, the model has {most} positions",
                fix="cut the text into pieces",
                code="QKV-037",
            )
        at: int | Tensor = 0
        if batch.group is not None:
            at = restarted(batch.group)
        elif self.counted is not None:
            real = batch.source != self.counted
            at = (real.cumsum(1) * real) - 1
        elif most is not None and S > most:
            at = torch.arange(S, device=batch.source.device)
        return at if isinstance(at, int) or most is None else at.clamp(max=most - 1)

    def states(self, batch: Batch) -> States:
        """(B, S) -> (B, S, C).  Packed texts (`group`) each begin at position 0."""
        batch = batch if self.prepare is None else self.prepare(batch)
        several = self.embed.segment is not None and self.embed.segment.num_embeddings > 1
        segment = batch.segment if several else None
        x = self.embed(batch.source, self.places(batch), segment)
        out: States = self.encoder(x, batch.keep, group=batch.group, marked=batch.marked)
        return out

    def encode(self, batch: Batch) -> Memory:
        """The states; the summary is the pooled first token where the family pools, else its state."""
        states = self.states(batch)
        summary = states[:, 0] if self.pooler is None else self.pooler(states, batch.keep)
        return Memory(states, batch.keep, summary)

    def logits(self, batch: Batch) -> Tensor:
        """Words: (B, S, V).  Tags: (B, S, labels).  Span: (B, S, 2), first and last.  Classes, nsp: (B, labels).

        Raises ConfigError where there is no head."""
        kind, memory = self.head.kind, self.encode(batch)
        if kind in WORDS:
            return self.head.words(memory.states)  # type: ignore[no-any-return]
        if kind == "span":
            return self.spans(memory, batch)
        if kind in OF_TOKENS:
            return self.head.labels(memory.states)  # type: ignore[no-any-return]
        return self.labelled(memory)

    def spans(self, memory: Memory, batch: Batch) -> Tensor:
        """(B, S, 2): how well each token begins and ends an answer."""
        z: Tensor = self.head.labels(memory.states)
        return z if self.barred is None else z - self.barred(batch)[..., None].to(z.dtype)

    def labelled(self, memory: Memory) -> Tensor:
        """The labels of whole texts (B, labels); of a pretraining net: does B follow A (0) or not (1)."""
        if self.head.kind not in LABELS or self.head.kind in OF_TOKENS:
            raise ConfigError(
                f"a net with head = {self.head.kind!r} has no labels of texts",
                fix='ask for its states: encode(batch), or build it with head = "classes"',
                code="QKV-013",
            )
        return in_sixteens(self.head.labels, memory.summary)[0]

    def loss_inputs(
        self, batch: Batch, *, forcing: float = 1.0, rng: torch.Generator | None = None
    ) -> Term | tuple[Term, ...]:
        """The terms of the head's loss: words and tags at the positions of `target_keep`, others by `label`; without a
        head those of contrastive learning."""
        kind, memory = self.head.kind, self.encode(batch)
        if kind == "none":
            return self.neighbours(memory, batch)
        if kind == "pretraining":
            return self.of_tokens(memory, batch), self.of_rows(memory, batch)
        if kind in ("mlm", "tags"):
            return self.of_tokens(memory, batch)
        if kind == "span":
            first, last = self.spans(memory, batch).unbind(-1)  # (B, S, 2) -> twice (B, S)
            return Choices.spans(first, last, batch.keep, given(batch.label, "label"))
        return self.of_rows(memory, batch)

    def neighbours(self, memory: Memory, batch: Batch) -> Choices:
        """The mean states of source and target, which belong together, against those of the other rows (Gao et al. 2021)."""
        other = Batch(given(batch.target, "target"), given(batch.target_keep, "target"))
        return Choices.pairs(memory.mean, self.encode(other).mean, same=batch.label)

    def of_tokens(self, memory: Memory, batch: Batch) -> Predictions:
        keep, target = given(batch.target_keep, "target"), given(batch.target, "target")
        last = self.head.words if self.head.kind in WORDS else self.head.labels
        states = last.change(memory.states[keep])  # (B, S, C) -> (N, C)
        return Predictions(states, last.out.weight, last.out.bias, target[keep])

    def of_rows(self, memory: Memory, batch: Batch) -> Term:
        label = given(batch.label, "label")
        last, name = self.head.labels, LABELS[self.head.kind]
        if self.head.kind == "classes" and self.head.problem == "value":
            return Values(last(memory.summary).flatten(), label.flatten())
        if self.head.kind == "classes" and self.head.problem == "many":
            return each(last(memory.summary), label)
        states = last.change(memory.summary)
        return Predictions(states, last.out.weight, last.out.bias, label, per="row", name=name)


def each(logits: Tensor, label: Tensor) -> Choices:
    """Every label is right (1) or not (0) by itself: log σ(z) is a choice between z and 0; both (B, labels)."""
    z = logits.flatten()
    return Choices(torch.stack([torch.zeros_like(z), z], 1), label.flatten().long(), name="classes")


def given(x: Tensor | None, name: str) -> Tensor:
    """Raises DataError where a batch lacks what its loss needs."""
    if x is None:
        raise DataError(
            f"this head's loss needs a batch with a {name}", fix="use the head's own objective"
        )
    return x
