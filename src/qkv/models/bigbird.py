"""BigBird (Zaheer et al. 2020): BERT over blocks of tokens that see their neighbours, the ends and a few random others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..parts.block import ACTIVATIONS, Activation, Stack, StackConfig
from ..parts.dropout import Dropout
from ..parts.embed import EmbedConfig
from ..parts.heads import Pooler, Pooling
from ..parts.patterns import Blocks, Full, Pattern
from ..shapes import Batch, Keep, States
from ..weights.table import Absent, Op, Table
from .bert import LAYERS, OLD, begin, problem, spare, their_sizes, words
from .blocks import BlockAttention, Plan
from .encoder import WORDS, HeadConfig, HeadKind, Problem, TextEncoder
from .hf import Keys, their_labels, their_segments, whole

SIZES: dict[str, dict[str, Any]] = {  # base and large: Zaheer et al. 2020, appendix E, table 8
    "tiny": dict(n_layers=2, d_model=128, n_heads=2, block=16, random=1),
    "base": dict(n_layers=12, d_model=768, n_heads=12),
    "large": dict(n_layers=24, d_model=1024, n_heads=16),
}
HF = ("big_bird",)
PREFIX = "bert."
HEADS: dict[HeadKind, str] = {
    "none": "BigBirdModel",
    "mlm": "BigBirdForMaskedLM",
    "pretraining": "BigBirdForPreTraining",
    "classes": "BigBirdForSequenceClassification",
    "tags": "BigBirdForTokenClassification",
    "span": "BigBirdForQuestionAnswering",
}
Sparse = Literal["none", "blocks", "published"]
TYPES: dict[str, Sparse] = {"block_sparse": "published", "original_full": "none"}
BARRED = 1e6  # what the score of a token of the question loses


@dataclass(frozen=True, kw_only=True)
class BigBirdConfig:
    head: HeadKind = "mlm"
    labels: tuple[str, ...] = ()  # names of classes or tags, by id
    problem: Problem = "one"
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int | None = None  # None: 4 x d_model
    # none: all see all.  published: as transformers computes it, quirks included.  blocks: without them, see `patterns`
    sparse: Sparse = "published"
    block: int = 64  # tokens
    random: int = 3  # blocks that each block sees beside its neighbours and the ends
    max_positions: int = 4096  # of a text
    segments: int = 2
    qkv_bias: bool = True
    rescale: bool = False  # embeddings × √d_model
    activation: Activation = "gelu_tanh"
    norm_eps: float = 1e-12
    tie: bool = True
    pooling: Pooling = "first"  # what stands for a text
    pooled: bool | None = None  # a layer on the first state; None: as the published class
    dropout: float = 0.1
    attn_dropout: float = 0.1  # where all see all; sparse attention has none
    head_dropout: float | None = None  # None: as dropout
    bos_id: int | None = 1
    eos_id: int | None = 2
    pad_id: int | None = 0
    sep_id: int | None = None  # what a question ends in; None: eos_id

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ConfigError(
                f"bigbird has no head {self.head!r}",
                fix=f"one of {', '.join(HEADS)}",
                code="QKV-013",
            )
        if self.block < 1 or self.random < 0:
            raise ConfigError(
                f"blocks of {self.block} tokens, {self.random} at random",
                fix="block = 64, random = 3",
            )
        self.stack()
        self.headed()

    @property
    def has_pooler(self) -> bool:
        usual = self.head != "span"
        return self.pooling == "first" and (usual if self.pooled is None else self.pooled)

    def embedded(self) -> EmbedConfig:
        return EmbedConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            positions="learned",
            max_positions=self.max_positions,
            segments=self.segments,
            scale=self.d_model**0.5 if self.rescale else 1.0,
            norm="layer",
            norm_eps=self.norm_eps,
            still=self.pad_id,
        )

    def stack(self) -> StackConfig:
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            qkv_bias=self.qkv_bias,
            out_bias=True,
            norm_eps=self.norm_eps,
            activation=self.activation,
            dropout=self.dropout,
            attn_dropout=0.0 if self.sparse == "blocks" else self.attn_dropout,
        )

    def headed(self) -> HeadConfig:
        p = self.dropout if self.head_dropout is None else self.head_dropout
        classes = self.head == "classes"
        return HeadConfig(
            kind=self.head,
            n_labels=len(self.labels),
            problem=self.problem,
            inner=self.activation if classes else None,
            dropout=p if self.head in ("classes", "tags") else 0.0,
            first_dropout=p if classes else 0.0,
            activation=self.activation,
            norm_eps=self.norm_eps,
            tie=self.tie,
        )

    def plan(self, layer: int) -> Plan:
        return Plan(
            size=self.block,
            random=self.random,
            n_heads=self.n_heads,
            seed=layer,
            max_positions=self.max_positions,
        )


def patterns(config: BigBirdConfig) -> tuple[Pattern, ...]:
    """Who sees whom, one a layer.  Of `sparse = "published"` this leaves out how often a block is seen (blocks.py)."""
    if config.sparse != "blocks":
        return (Full(),) * config.n_layers
    return tuple(Blocks(config.block, random=config.random, seed=i) for i in range(config.n_layers))


class DroppedNorm(nn.LayerNorm):
    """norm(dropout(x)): BigBird drops parts of an embedding before its norm."""

    def __init__(self, d_model: int, eps: float, dropout: float) -> None:
        super().__init__(d_model, eps=eps)
        self.drop = Dropout(dropout)

    def forward(self, x: States) -> States:
        return F.layer_norm(self.drop(x), self.normalized_shape, self.weight, self.bias, self.eps)


class Unread(Pooler):
    """A pooler that published files hold and the head does not read: the summary is the first token's state."""

    def forward(self, x: States, keep: Keep) -> Tensor:
        return x[:, 0]


class Ends(nn.Module):
    """Scores of the first and the last token of an answer: W norm(x + down(act(up x))) + b, (…, C) -> (…, 2)."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        C, n = config.d_model, config.d_ff or 4 * config.d_model
        self.up, self.down, self.out = nn.Linear(C, n), nn.Linear(n, C), nn.Linear(C, 2)
        self.act = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(C, eps=config.norm_eps)
        self.drop = Dropout(config.dropout)

    def change(self, x: States) -> States:
        """All but the last product."""
        y: Tensor = self.norm(x + self.drop(self.down(self.act(self.up(self.drop(x))))))
        return y

    def forward(self, x: States) -> Tensor:
        y: Tensor = self.out(self.change(x))
        return y


@dataclass(frozen=True)
class Questions:
    """[CLS] question [SEP] context [SEP]: where a batch says nothing of it, the context is the second segment; no answer
    stands in the question."""

    sep_id: int | None

    def asked(self, batch: Batch) -> Tensor:
        """(B, S) bool: tokens up to the first `sep_id`, or the first alone where there is none."""
        found = batch.source == (-1 if self.sep_id is None else self.sep_id)
        ends = found.long().argmax(1, keepdim=True)
        return torch.arange(batch.source.shape[1], device=ends.device) <= ends

    def __call__(self, batch: Batch) -> Batch:
        if batch.segment is not None:
            return batch
        return replace(batch, segment=(~self.asked(batch)).long())

    def barred(self, batch: Batch) -> Tensor:
        """(B, S): what the scores of a token lose.  The first token stays: it stands for no answer."""
        asked = self.asked(batch)
        asked[:, :1] = False
        return asked * BARRED


def build(config: BigBirdConfig) -> TextEncoder:
    stack, wanted = Stack(config.stack()), config.stack().attention(None)
    stack.patterns = patterns(config)
    if config.sparse == "published":
        for i, block in enumerate(stack.each):
            block.attn = BlockAttention(wanted, config.plan(i))
    pooler = Unread if config.head == "classes" else Pooler
    sep = config.eos_id if config.sep_id is None else config.sep_id
    questions = Questions(sep) if config.head == "span" else None
    net = TextEncoder(
        config.embedded(),
        stack,
        pooler(config.d_model) if config.has_pooler else None,
        config.headed(),
        pooling=config.pooling,
        pad_id=max(config.pad_id or 0, 0),
        prepare=questions,
        barred=None if questions is None else questions.barred,
    )
    net.embed.norm = DroppedNorm(config.d_model, config.norm_eps, config.dropout)
    if config.head == "span":
        net.head.span = Ends(config)
    begin(net)
    spare(net, config.headed())
    return net


# ---- their configuration


def from_hf(keys: Keys) -> BigBirdConfig:
    keys.expect("is_decoder", False)
    keys.expect("add_cross_attention", False)
    keys.expect("is_encoder_decoder", False)
    keys.expect("pruned_heads", {})
    keys.expect("position_embedding_type", "absolute")
    keys.ignore("output_past", "cross_attention_hidden_size", "tie_weights_")  # nothing reads them
    known = {name: head for head, name in HEADS.items()}
    head: HeadKind = keys.architecture(known, HEADS["none"])
    labels = keys.labels() if head in ("classes", "tags") else ()
    vocab_size = keys.take("vocab_size", 50358)
    return BigBirdConfig(
        head=head,
        labels=labels,
        problem=problem(keys, len(labels)) if head == "classes" else "one",
        vocab_size=vocab_size,
        d_model=keys.take("hidden_size", 768),
        n_layers=keys.take("num_hidden_layers", 12),
        n_heads=keys.take("num_attention_heads", 12),
        d_ff=keys.take("intermediate_size", 3072),
        sparse=keys.one_of("attention_type", TYPES, "block_sparse"),  # type: ignore[arg-type]
        block=keys.take("block_size", 64),
        random=keys.take("num_random_blocks", 3),
        max_positions=keys.take("max_position_embeddings", 4096),
        segments=keys.take("type_vocab_size", 2),
        qkv_bias=keys.take("use_bias", True),
        rescale=keys.take("rescale_embeddings", False),
        activation=keys.act("hidden_act", "gelu_new"),
        norm_eps=keys.take("layer_norm_eps", 1e-12),
        tie=keys.take("tie_word_embeddings", True),
        dropout=keys.take("hidden_dropout_prob", 0.1),
        attn_dropout=keys.take("attention_probs_dropout_prob", 0.1),
        head_dropout=keys.share("classifier_dropout"),
        bos_id=keys.token("bos_token_id", 1),
        eos_id=keys.token("eos_token_id", 2),
        pad_id=keys.padding(whole(keys, "pad_token_id", 0), vocab_size),
        sep_id=keys.token("sep_token_id", 66),
    )


def to_hf(config: BigBirdConfig) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model_type": "big_bird",
        "architectures": [HEADS[config.head]],
        "attention_type": "original_full" if config.sparse == "none" else "block_sparse",
        "block_size": config.block,
        "num_random_blocks": config.random,
        "use_bias": config.qkv_bias,
        "rescale_embeddings": config.rescale,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "type_vocab_size": their_segments(config.segments),
        "tie_word_embeddings": config.tie,
        **their_sizes(config),
        "classifier_dropout": config.head_dropout,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "sep_token_id": config.eos_id if config.sep_id is None else config.sep_id,
    }
    return made | their_labels(config)


# ---- their tensors

CLASSES = {"classifier.dense.{p}": "dense", "classifier.out_proj.{p}": "out"}
SPANS = {
    "qa_classifier.intermediate.dense.{p}": "up",
    "qa_classifier.output.dense.{p}": "down",
    "qa_classifier.output.LayerNorm.{p}": "norm",
    "qa_classifier.qa_outputs.{p}": "out",
}


def fitted(config: BigBirdConfig, theirs: Mapping[str, Tensor]) -> BigBirdConfig:
    """A model may have been saved without a pooler that nothing reads."""
    absent = not any(name.endswith("pooler.weight") for name in theirs)
    unread = config.has_pooler and config.head != "pretraining"
    return replace(config, pooled=False) if unread and absent else config


def table(config: BigBirdConfig) -> Table:
    embeddings = PREFIX + "embeddings."
    rows: dict[str, str | Op] = {
        embeddings + "word_embeddings.weight": "embed.token.weight",
        embeddings + "position_embeddings.weight": "embed.position.weight",
        embeddings + "token_type_embeddings.weight": "embed.segment.weight",
        embeddings + "LayerNorm.{p}": "embed.norm.{p}",
        **{PREFIX + a: "encoder.blocks.{i}." + b for a, b in LAYERS.items()},
    }
    skip = {
        embeddings + "position_ids": "0, 1, 2, …, stored by old versions",
        embeddings + "token_type_ids": "zeros, stored by old versions",
    }
    if config.has_pooler:
        rows[PREFIX + "pooler.{p}"] = "pooler.dense.{p}"
    else:
        skip[PREFIX + "pooler.*"] = "no head here reads the pooled vector"
    tied: dict[str, str] = {}
    absent: dict[str, Absent] = {}
    if config.head in WORDS:
        words(config, rows, tied, absent, names="bert.", prefix=PREFIX)
    else:
        skip["cls.predictions.*"] = "a head that this architecture leaves out"
    if config.head == "pretraining":
        rows["cls.seq_relationship.{p}"] = "head.next.out.{p}"
    else:
        skip["cls.seq_relationship.*"] = "a head that this architecture leaves out"
    if config.head == "classes":
        rows |= {a: f"head.classes.{b}.{{p}}" for a, b in CLASSES.items()}
    elif config.head == "tags":
        rows["classifier.{p}"] = "head.tags.out.{p}"
    elif config.head == "span":
        rows |= {a: f"head.span.{b}.{{p}}" for a, b in SPANS.items()}
    return Table(rows, skip=skip, tied=tied, absent=absent, old=OLD, prefix=PREFIX)
