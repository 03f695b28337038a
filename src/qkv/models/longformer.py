"""Longformer (Beltagy et al. 2020): RoBERTa whose tokens see a window, and a few chosen ones see and are seen by all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..parts.block import Activation, Stack, StackConfig
from ..parts.embed import EmbedConfig
from ..parts.heads import Pooler, Pooling
from ..parts.patterns import Dilated, Pattern
from ..shapes import Batch
from ..weights.table import Absent, Op, Table
from .bert import CLASS_ROWS, LAYERS, OLD, OTHERS, begin, problem, spare, their_sizes, words
from .encoder import WORDS, HeadConfig, HeadKind, Problem, TextEncoder
from .hf import Keys, their_labels, their_segments, whole
from .windowed import LongAttention

SIZES: dict[str, dict[str, Any]] = {  # base and large: Beltagy et al. 2020, section 5
    "tiny": dict(n_layers=2, d_model=128, n_heads=2, window=32, max_positions=4096),
    "base": dict(n_layers=12, d_model=768, n_heads=12),
    "large": dict(n_layers=24, d_model=1024, n_heads=16),
}
HF = ("longformer",)
PREFIX = "longformer."
HEADS: dict[HeadKind, str] = {
    "none": "LongformerModel",
    "mlm": "LongformerForMaskedLM",
    "classes": "LongformerForSequenceClassification",
    "tags": "LongformerForTokenClassification",
    "span": "LongformerForQuestionAnswering",
}
Marking = Literal["none", "first", "question"]
MARKED: dict[HeadKind, Marking] = {"classes": "first", "span": "question"}


@dataclass(frozen=True, kw_only=True)
class LongformerConfig:
    head: HeadKind = "mlm"
    labels: tuple[str, ...] = ()  # names of classes or tags, by id
    problem: Problem = "one"
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int | None = None  # None: 4 x d_model
    window: int | tuple[int, ...] = (
        512  # tokens seen around each, half on each side; or one a layer
    )
    dilation: int | tuple[int, ...] = 1  # from one of them to the next; or one a layer
    dilated_heads: int | None = None  # the last ones of a layer that are dilated; None: all
    marked: Marking | None = None  # global tokens where a batch names none; None: as the head asks
    max_positions: int = 4096  # of a text
    segments: int = 1
    activation: Activation = "gelu"
    norm_eps: float = 1e-12
    tie: bool = True
    pooling: Pooling = "first"  # what stands for a text
    pooled: bool | None = None  # a layer on the first state; None: only without a head
    dropout: float = 0.1
    attn_dropout: float = 0.1
    bos_id: int | None = 0
    eos_id: int | None = 2
    pad_id: int | None = 1
    sep_id: int | None = None  # what a question ends in; None: eos_id

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise _bad(f"longformer has no head {self.head!r}", f"one of {', '.join(HEADS)}")
        if self.pad_id is None or self.pad_id < 0:
            raise _bad(f"pad_id = {self.pad_id}: positions are numbered from it", "pad_id = 1")
        for name, least in (("window", 2), ("dilation", 1)):
            values = self.each(name)
            if len(values) != self.n_layers or min(values, default=0) < least:
                raise _bad(
                    f"{name} = {getattr(self, name)} for {self.n_layers} layers",
                    f"one number of at least {least}, or one a layer",
                )
        if odd := [w for w in self.each("window") if w % 2]:
            raise _bad(f"window = {odd[0]}: half of it is on each side", f"window = {odd[0] + 1}")
        if not 0 <= self.n_dilated <= self.n_heads:
            raise _bad(f"{self.dilated_heads} dilated heads of {self.n_heads}", "dilated_heads = 2")
        self.stack()
        self.headed()

    def each(self, name: Literal["window", "dilation"] | str) -> tuple[int, ...]:
        """One a layer."""
        value: int | tuple[int, ...] = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * self.n_layers

    @property
    def n_dilated(self) -> int:
        return self.n_heads if self.dilated_heads is None else self.dilated_heads

    @property
    def offset(self) -> int:
        """Rows of the position table that no text uses."""
        return (self.pad_id or 0) + 1

    @property
    def has_pooler(self) -> bool:
        usual = self.head == "none"
        return self.pooling == "first" and (usual if self.pooled is None else self.pooled)

    def embedded(self) -> EmbedConfig:
        return EmbedConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            positions="learned",
            max_positions=self.max_positions,
            offset=self.offset,
            segments=self.segments,
            norm="layer",
            norm_eps=self.norm_eps,
            still=self.pad_id,
            dropout=self.dropout,
        )

    def stack(self) -> StackConfig:
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            windows=tuple(w // 2 for w in self.each("window")),
            norm_eps=self.norm_eps,
            activation=self.activation,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
        )

    def headed(self) -> HeadConfig:
        classes = self.head == "classes"
        return HeadConfig(
            kind=self.head,
            n_labels=len(self.labels),
            problem=self.problem,
            inner="tanh" if classes else None,
            dropout=self.dropout if self.head in ("classes", "tags") else 0.0,
            first_dropout=self.dropout if classes else 0.0,
            norm_eps=self.norm_eps,
            tie=self.tie,
        )

    def marks(self) -> "Marks":
        sep = self.eos_id if self.sep_id is None else self.sep_id
        return Marks(self.marked or MARKED.get(self.head, "none"), sep)


def _bad(seen: str, fix: str) -> ConfigError:
    return ConfigError(seen, fix=fix, code="QKV-013")


@dataclass(frozen=True)
class Marks:
    """Which tokens are global where the user names none: the first, or those of the question, before the first `sep_id`
    (Beltagy et al. 2020, section 3.1)."""

    kind: Marking
    sep_id: int | None

    def __call__(self, batch: Batch) -> Batch:
        if batch.marked is not None or self.kind == "none":
            return batch
        if self.kind == "first":
            marked = torch.zeros_like(batch.keep)
            marked[:, :1] = True
        else:
            ends = batch.source == (-1 if self.sep_id is None else self.sep_id)
            marked = (ends.cumsum(1) == 0) & ends.any(1, keepdim=True)
        return replace(batch, marked=marked & batch.keep)


# ---- assembly


def patterns(config: LongformerConfig) -> list[tuple[Pattern, ...]]:
    """What the heads of each layer may see beside the marked tokens, one pattern a head."""
    made, stack = [], config.stack()
    for pattern, gaps in zip(stack.patterns, dilations(config), strict=True):
        n = 0 if gaps is None else config.n_dilated
        made.append((pattern,) * (config.n_heads - n) + (gaps or pattern,) * n)
    return made


def dilations(config: LongformerConfig) -> list[Dilated | None]:
    """One a layer; None: no gaps."""
    pairs = zip(config.each("window"), config.each("dilation"), strict=True)
    return [None if step == 1 else Dilated(window // 2, step) for window, step in pairs]


def build(config: LongformerConfig) -> TextEncoder:
    stack, wanted = Stack(config.stack()), config.stack().attention(None)
    for block, w, gaps in zip(stack.each, config.each("window"), dilations(config), strict=True):
        block.attn = LongAttention(wanted, w // 2, gaps, config.n_dilated)
    net = TextEncoder(
        config.embedded(),
        stack,
        Pooler(config.d_model) if config.has_pooler else None,
        config.headed(),
        pooling=config.pooling,
        pad_id=config.pad_id or 0,
        counted=config.pad_id,
        prepare=config.marks(),
    )
    begin(net)
    spare(net, config.headed())
    if net.embed.position is not None:
        net.embed.position.padding_idx = config.pad_id  # the row of padding is not learned
    return net


# ---- their configuration


def from_hf(keys: Keys) -> LongformerConfig:
    keys.expect("is_decoder", False)
    keys.expect("add_cross_attention", False)
    keys.expect("is_encoder_decoder", False)
    keys.expect("pruned_heads", {})
    keys.expect("position_embedding_type", "absolute")
    # of the code that first trained it, and of exports: nothing reads them
    keys.ignore("attention_mode", "ignore_attention_mask", "onnx_export", "output_past")
    keys.ignore("classifier_dropout", "cross_attention_hidden_size", "tie_weights_")
    known = {name: head for head, name in HEADS.items()}
    head: HeadKind = keys.architecture(known, HEADS["none"])
    labels = keys.labels() if head in ("classes", "tags", "span") else ()
    if head == "span" and len(labels) != 2:
        raise ConfigError(
            f"{len(labels)} labels: an answer has a first and a last token",
            place=keys.place,
            fix="num_labels must be 2",
            code="QKV-012",
        )
    pad, vocab_size = whole(keys, "pad_token_id", 1), keys.take("vocab_size", 30522)
    n_layers = keys.take("num_hidden_layers", 12)
    return LongformerConfig(
        head=head,
        labels=() if head == "span" else labels,
        problem=problem(keys, len(labels)) if head == "classes" else "one",
        vocab_size=vocab_size,
        d_model=keys.take("hidden_size", 768),
        n_layers=n_layers,
        n_heads=keys.take("num_attention_heads", 12),
        d_ff=keys.take("intermediate_size", 3072),
        window=_window(keys, n_layers),
        max_positions=keys.take("max_position_embeddings", 512) - (pad or 0) - 1,
        segments=keys.take("type_vocab_size", 2),
        activation=keys.act("hidden_act", "gelu"),
        norm_eps=keys.take("layer_norm_eps", 1e-12),
        tie=keys.take("tie_word_embeddings", True),
        dropout=keys.take("hidden_dropout_prob", 0.1),
        attn_dropout=keys.take("attention_probs_dropout_prob", 0.1),
        bos_id=keys.token("bos_token_id", 0),
        eos_id=keys.token("eos_token_id", 2),
        pad_id=keys.padding(pad, vocab_size),
        sep_id=keys.token("sep_token_id", 2),
    )


def _window(keys: Keys, n_layers: int) -> int | tuple[int, ...]:
    """One for all layers, or one each; one each that are all alike is one for all."""
    value = keys.values.get("attention_window")
    value = 512 if value is None else value
    keys.ignore("attention_window")
    each = value if isinstance(value, list) else [value] * n_layers
    if any(type(w) is not int for w in each) or len(each) != n_layers:
        raise ConfigError(
            f"attention_window = {str(value)[:60]} for {n_layers} layers",
            place=keys.place,
            fix="one whole number, or a list with one a layer",
            code="QKV-011",
        )
    return each[0] if len(set(each)) == 1 else tuple(each)


def to_hf(config: LongformerConfig) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model_type": "longformer",
        "architectures": [HEADS[config.head]],
        "attention_window": list(config.each("window")),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions + config.offset,
        "type_vocab_size": their_segments(config.segments),
        "tie_word_embeddings": config.tie,
        **their_sizes(config),
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "sep_token_id": config.eos_id if config.sep_id is None else config.sep_id,
    }
    return made | their_labels(config)


# ---- their tensors

OWN = "encoder.layer.{i}.attention.self.{query_global,key_global,value_global}.{p}"


def fitted(config: LongformerConfig, theirs: Mapping[str, Tensor]) -> LongformerConfig:
    """A bare model may have been saved without its pooler."""
    absent = not any(name.endswith("pooler.dense.weight") for name in theirs)
    return replace(config, pooled=False) if config.has_pooler and absent else config


def table(config: LongformerConfig) -> Table:
    layers = LAYERS | {OWN: "attn.{q_global,k_global,v_global}.{p}"}
    embeddings = PREFIX + "embeddings."
    rows: dict[str, str | Op] = {
        embeddings + "word_embeddings.weight": "embed.token.weight",
        embeddings + "position_embeddings.weight": "embed.position.weight",
        embeddings + "token_type_embeddings.weight": "embed.segment.weight",
        embeddings + "LayerNorm.{p}": "embed.norm.{p}",
        **{PREFIX + a: "encoder.blocks.{i}." + b for a, b in layers.items()},
    }
    skip = {embeddings + "position_ids": "0, 1, 2, …, stored by old versions"}
    if config.has_pooler:
        rows[PREFIX + "pooler.dense.{p}"] = "pooler.dense.{p}"
    else:
        skip[PREFIX + "pooler.*"] = "no head here reads the pooled vector"
    tied: dict[str, str] = {}
    absent: dict[str, Absent] = {}
    if config.head in WORDS:
        words(config, rows, tied, absent, names="roberta.", prefix=PREFIX)
    else:
        skip |= {name: "a head that this architecture leaves out" for name in OTHERS["roberta."]}
    if config.head == "classes":
        rows |= {a: f"head.classes.{b}.{{p}}" for a, b in CLASS_ROWS["roberta."].items()}
    elif config.head in ("tags", "span"):
        name = {"tags": "classifier.{p}", "span": "qa_outputs.{p}"}[config.head]
        rows[name] = f"head.{config.head}.out.{{p}}"
    return Table(rows, skip=skip, tied=tied, absent=absent, old=OLD, prefix=PREFIX)
