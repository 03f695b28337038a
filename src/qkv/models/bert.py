"""BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and DistilBERT (Sanh et al. 2019): post-norm encoders."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts.block import Activation, Stack, StackConfig
from ..parts.embed import EmbedConfig
from ..parts.heads import Pooler, Pooling
from ..parts.positions import sinusoid
from ..weights.table import Absent, Op, Table
from .encoder import WORDS, HeadConfig, HeadKind, Problem, TextEncoder
from .hf import PROBLEMS, THEIR_ACTS, Keys, their_labels, their_segments, whole

SIZES = {  # Turc et al. 2019, table 1; base and large: Devlin et al. 2019, section 3
    "tiny": dict(n_layers=2, d_model=128, n_heads=2),
    "mini": dict(n_layers=4, d_model=256, n_heads=4),
    "small": dict(n_layers=4, d_model=512, n_heads=8),
    "medium": dict(n_layers=8, d_model=512, n_heads=8),
    "base": dict(n_layers=12, d_model=768, n_heads=12),
    "large": dict(n_layers=24, d_model=1024, n_heads=16),
}
LayoutName = Literal["bert", "roberta", "xlm-roberta", "camembert", "distilbert"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one published line differs from BERT."""

    classes: str = "Bert"  # what its class names begin with
    prefix: str = "bert."
    pad_id: int | None = 0
    bos_id: int | None = None
    eos_id: int | None = None
    segments: int = 2
    counted: bool = False  # positions count real tokens, from the padding's id + 1
    pooled: tuple[HeadKind, ...] = ("none", "nsp", "pretraining", "classes")
    inner: Activation | None = None  # of the head for classes
    word_activation: Activation | None = None  # None: the stack's
    heads: dict[HeadKind, str]


HEADS: dict[HeadKind, str] = {
    "none": "Model",
    "mlm": "ForMaskedLM",
    "classes": "ForSequenceClassification",
    "tags": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}


def _roberta(classes: str) -> Layout:
    return Layout(
        classes=classes,
        prefix="roberta.",
        pad_id=1,
        bos_id=0,
        eos_id=2,
        counted=True,
        pooled=("none",),
        inner="tanh",
        word_activation="gelu",
        heads=HEADS,
    )


LAYOUTS: dict[str, Layout] = {
    "bert": Layout(
        heads=HEADS | {"nsp": "ForNextSentencePrediction", "pretraining": "ForPreTraining"}
    ),
    "roberta": _roberta("Roberta"),
    "xlm-roberta": _roberta("XLMRoberta"),
    "camembert": _roberta("Camembert"),
    "distilbert": Layout(
        classes="DistilBert",
        prefix="distilbert.",
        segments=0,
        pooled=(),
        inner="relu",
        heads=HEADS,
    ),
}
HF = tuple(LAYOUTS)
PREFIX = "bert."
EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    layout: LayoutName = "bert"
    head: HeadKind = "mlm"
    labels: tuple[str, ...] = ()  # names of classes or tags, by id
    problem: Problem = "one"
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int | None = None  # None: 4 x d_model
    max_positions: int = 512  # of a text
    segments: int | None = None  # None: 2; of DistilBERT 0
    pattern: str | None = None  # who sees whom: "window(256) | global(1)"
    activation: Activation = "gelu"
    norm_eps: float = EPS
    tie: bool = True
    pooling: Pooling = "first"  # what stands for a text
    pooled: bool | None = None  # a layer on the first state; None: as the published class
    sinusoid: bool = False  # learned positions begin as sinusoids (DistilBERT)
    dropout: float = 0.1
    attn_dropout: float = 0.1
    head_dropout: float | None = None  # None: as dropout
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = 0

    def __post_init__(self) -> None:
        line = LAYOUTS[self.layout]
        if self.head not in line.heads:
            raise ConfigError(
                f"{self.layout} has no head {self.head!r}",
                fix=f"one of {', '.join(line.heads)}",
                code="QKV-013",
            )
        if self.layout == "distilbert" and (self.segments or self.norm_eps != EPS):
            raise ConfigError(
                f"segments = {self.segments}, norm_eps = {self.norm_eps} for distilbert",
                fix=f"it has segments = 0 and norm_eps = {EPS}; or choose layout = 'bert'",
                code="QKV-013",
            )
        if line.counted and (self.pad_id is None or self.pad_id < 0):
            raise ConfigError(
                f"pad_id = {self.pad_id}: {self.layout} numbers its positions from it",
                fix="pad_id = 1",
                code="QKV-013",
            )
        self.stack()
        self.headed()

    @property
    def line(self) -> Layout:
        return LAYOUTS[self.layout]

    @property
    def kinds(self) -> int:
        """Of segments."""
        return self.line.segments if self.segments is None else self.segments

    @property
    def offset(self) -> int:
        """Rows of the position table that no text uses."""
        return (self.pad_id or 0) + 1 if self.line.counted else 0

    @property
    def has_pooler(self) -> bool:
        usual = self.head in self.line.pooled
        return self.pooling == "first" and (usual if self.pooled is None else self.pooled)

    def embedded(self) -> EmbedConfig:
        return EmbedConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            positions="learned",
            max_positions=self.max_positions,
            offset=self.offset,
            segments=self.kinds,
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
            norm_eps=self.norm_eps,
            activation=self.activation,
            pattern=self.pattern,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
        )

    def headed(self) -> HeadConfig:
        p = self.dropout if self.head_dropout is None else self.head_dropout
        inner = self.line.inner if self.head == "classes" else None
        return HeadConfig(
            kind=self.head,
            n_labels=len(self.labels),
            problem=self.problem,
            inner=inner,
            dropout=p if self.head in self.dropped else 0.0,
            first_dropout=p if inner is not None and self.line.counted else 0.0,
            activation=self.line.word_activation or self.activation,
            norm_eps=self.norm_eps,
            tie=self.tie,
        )

    @property
    def dropped(self) -> tuple[HeadKind, ...]:
        """Heads with dropout before their last layer."""
        return ("classes", "tags", "span") if self.layout == "distilbert" else ("classes", "tags")


def build(config: BertConfig) -> TextEncoder:
    counted = config.pad_id if config.line.counted else None
    net = TextEncoder(
        config.embedded(),
        Stack(config.stack()),
        Pooler(config.d_model) if config.has_pooler else None,
        config.headed(),
        pooling=config.pooling,
        pad_id=max(config.pad_id or 0, 0),
        counted=counted,
    )
    begin(net)
    if config.layout != "distilbert":
        spare(net, config.headed())
    position = net.embed.position
    if config.sinusoid and position is not None:
        position.weight.data = sinusoid(*position.weight.shape).to(position.weight)
    if counted is not None and position is not None:
        position.padding_idx = counted  # the row of padding is not learned
    return net


def begin(net: TextEncoder) -> None:
    """N(0, 0.02) (Devlin et al. 2019's code; GPT's section 4.1); biases 0, the padding's vector 0."""
    for name, p in net.named_parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    if net.embed.token.padding_idx is not None:
        nn.init.zeros_(net.embed.token.weight.data[net.embed.token.padding_idx])


def spare(net: TextEncoder, head: HeadConfig) -> None:
    """QUIRK (transformers 5): files of an untied word head hold a further bias (V), which nothing reads.

    It is kept so that what we write is whole; test_the_spare_bias_changes_nothing."""
    if head.kind in WORDS and not head.tie:
        words = net.head.words
        words.register_buffer("spare", torch.zeros_like(words.out.bias))


# ---- their configuration


def from_hf(keys: Keys) -> BertConfig:
    layout: LayoutName = keys.take("model_type", "bert")
    line = LAYOUTS[layout]
    keys.expect("is_decoder", False)
    keys.expect("add_cross_attention", False)
    keys.expect("is_encoder_decoder", False)
    keys.expect("pruned_heads", {})
    keys.expect("position_embedding_type", "absolute")
    # of the code that first trained BERT, of old versions and of other programs: nothing reads them
    keys.ignore("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_type")
    keys.ignore("pooler_num_fc_layers", "pooler_size_per_head", "output_past", "xla_device")
    keys.ignore("eos_token_ids", "tie_weights_", "cross_attention_hidden_size")
    known = {line.classes + name: head for head, name in line.heads.items()}
    head: HeadKind = keys.architecture(known, f"{line.classes}Model")
    labels = keys.labels() if head in ("classes", "tags", "span") else ()
    if head == "span" and len(labels) != 2:
        raise ConfigError(
            f"{len(labels)} labels: an answer has a first and a last token",
            place=keys.place,
            fix="num_labels must be 2",
            code="QKV-012",
        )
    pad = whole(keys, "pad_token_id", line.pad_id)
    vocab_size = keys.take("vocab_size", 30522 if layout != "roberta" else 50265)
    common: dict[str, Any] = dict(
        layout=layout,
        head=head,
        labels=() if head == "span" else labels,
        problem=problem(keys, len(labels)) if head == "classes" else "one",
        vocab_size=vocab_size,
        tie=keys.take("tie_word_embeddings", True),
        bos_id=keys.token("bos_token_id", line.bos_id),
        eos_id=keys.token("eos_token_id", line.eos_id),
        pad_id=keys.padding(pad, vocab_size),
    )
    rows = keys.take("max_position_embeddings", 512)
    if layout == "distilbert":
        return BertConfig(**common, **_distilled(keys, head), max_positions=rows, segments=0)
    dropout = keys.take("hidden_dropout_prob", 0.1)
    return BertConfig(
        **common,
        d_model=keys.take("hidden_size", 768),
        n_layers=keys.take("num_hidden_layers", 12),
        n_heads=keys.take("num_attention_heads", 12),
        d_ff=keys.take("intermediate_size", 3072),
        max_positions=rows - ((pad or 0) + 1 if line.counted else 0),
        segments=keys.take("type_vocab_size", 2),
        activation=keys.act("hidden_act", "gelu"),
        norm_eps=keys.take("layer_norm_eps", EPS),
        dropout=dropout,
        attn_dropout=keys.take("attention_probs_dropout_prob", 0.1),
        head_dropout=keys.share("classifier_dropout"),
    )


def problem(keys: Keys, n_labels: int) -> Problem:
    """One label is a number, several are classes of which one is right, unless the file says otherwise."""
    usual = "regression" if n_labels == 1 else "single_label_classification"
    made: Problem = keys.one_of("problem_type", PROBLEMS, usual)  # type: ignore[assignment]
    return made


def _distilled(keys: Keys, head: HeadKind) -> dict[str, Any]:
    dropout = keys.take("dropout", 0.1)
    of_span, of_classes = keys.take("qa_dropout", 0.1), keys.take("seq_classif_dropout", 0.2)
    return dict(
        d_model=keys.take("dim", 768),
        n_layers=keys.take("n_layers", 6),
        n_heads=keys.take("n_heads", 12),
        d_ff=keys.take("hidden_dim", 3072),
        activation=keys.act("activation", "gelu"),
        sinusoid=keys.take("sinusoidal_pos_embds", False),
        dropout=dropout,
        attn_dropout=keys.take("attention_dropout", 0.1),
        head_dropout={"span": of_span, "classes": of_classes}.get(head),
    )


def to_hf(config: BertConfig) -> dict[str, Any]:
    line = config.line
    made: dict[str, Any] = {
        "model_type": config.layout,
        "architectures": [line.classes + line.heads[config.head]],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions + config.offset,
        "tie_word_embeddings": config.tie,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }
    made |= their_labels(config)
    values = _to_distilled if config.layout == "distilbert" else _to_bert
    return made | values(config)


def _to_bert(config: BertConfig) -> dict[str, Any]:
    own = {
        "type_vocab_size": their_segments(config.kinds),
        "classifier_dropout": config.head_dropout,
    }
    return their_sizes(config) | own


def their_sizes(config: Any) -> dict[str, Any]:
    """The sizes of an encoder as BERT's config.json names them (BigBird, Longformer)."""
    return {
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff or 4 * config.d_model,
        "hidden_act": THEIR_ACTS[config.activation],
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attn_dropout,
    }


def _to_distilled(config: BertConfig) -> dict[str, Any]:
    of_head = config.dropout if config.head_dropout is None else config.head_dropout
    return {
        "dim": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "hidden_dim": config.d_ff or 4 * config.d_model,
        "activation": THEIR_ACTS[config.activation],
        "sinusoidal_pos_embds": config.sinusoid,
        "dropout": config.dropout,
        "attention_dropout": config.attn_dropout,
        "qa_dropout": of_head if config.head == "span" else 0.1,
        "seq_classif_dropout": of_head if config.head == "classes" else 0.2,
    }


# ---- their tensors

LAYERS = {
    "encoder.layer.{i}.attention.self.{query,key,value}.{p}": "attn.{q,k,v}.{p}",
    "encoder.layer.{i}.attention.output.dense.{p}": "attn.o.{p}",
    "encoder.layer.{i}.attention.output.LayerNorm.{p}": "attn_norm.{p}",
    "encoder.layer.{i}.intermediate.dense.{p}": "ff.up.{p}",
    "encoder.layer.{i}.output.dense.{p}": "ff.down.{p}",
    "encoder.layer.{i}.output.LayerNorm.{p}": "ff_norm.{p}",
}
DISTILLED_LAYERS = {
    "transformer.layer.{i}.attention.{q_lin,k_lin,v_lin}.{p}": "attn.{q,k,v}.{p}",
    "transformer.layer.{i}.attention.out_lin.{p}": "attn.o.{p}",
    "transformer.layer.{i}.sa_layer_norm.{p}": "attn_norm.{p}",
    "transformer.layer.{i}.ffn.lin1.{p}": "ff.up.{p}",
    "transformer.layer.{i}.ffn.lin2.{p}": "ff.down.{p}",
    "transformer.layer.{i}.output_layer_norm.{p}": "ff_norm.{p}",
}
WORD_ROWS = {  # prefix -> the word head's first matrix, and its norm
    "bert.": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
    "roberta.": ("lm_head.dense", "lm_head.layer_norm"),
    "distilbert.": ("vocab_transform", "vocab_layer_norm"),
}
LAST_ROWS = {  # prefix -> the word head's last matrix, and its bias
    "bert.": ("cls.predictions.decoder", "cls.predictions.bias"),
    "roberta.": ("lm_head.decoder", "lm_head.bias"),
    "distilbert.": ("vocab_projector", "vocab_projector.bias"),
}
CLASS_ROWS = {
    "bert.": {"classifier.{p}": "out"},
    "roberta.": {"classifier.dense.{p}": "dense", "classifier.out_proj.{p}": "out"},
    "distilbert.": {"pre_classifier.{p}": "dense", "classifier.{p}": "out"},
}


def fitted(config: BertConfig, theirs: Mapping[str, Tensor]) -> BertConfig:
    """A bare model may have been saved without its pooler."""
    bare = config.head == "none" and config.has_pooler
    absent = not any(name.endswith("pooler.dense.weight") for name in theirs)
    return replace(config, pooled=False) if bare and absent else config


def table(config: BertConfig) -> Table:
    prefix, head = config.line.prefix, config.head
    layers = DISTILLED_LAYERS if config.layout == "distilbert" else LAYERS
    rows: dict[str, str | Op] = {
        prefix + "embeddings.word_embeddings.weight": "embed.token.weight",
        prefix + "embeddings.position_embeddings.weight": "embed.position.weight",
        prefix + "embeddings.LayerNorm.{p}": "embed.norm.{p}",
        **{prefix + a: "encoder.blocks.{i}." + b for a, b in layers.items()},
    }
    if config.kinds:
        rows[prefix + "embeddings.token_type_embeddings.weight"] = "embed.segment.weight"
    skip = {
        prefix + "embeddings.position_ids": "0, 1, 2, …, stored by old versions",
        prefix + "embeddings.token_type_ids": "zeros, stored by old versions",
    }
    if config.has_pooler:
        rows[prefix + "pooler.dense.{p}"] = "pooler.dense.{p}"
    else:
        skip[prefix + "pooler.*"] = "no head here reads the pooled vector"
    tied: dict[str, str] = {}
    absent: dict[str, Absent] = {}
    if head in WORDS:
        words(config, rows, tied, absent, names=prefix, prefix=prefix)
    elif head in ("none", "nsp"):
        skip |= {name: "a head that this architecture leaves out" for name in OTHERS[prefix]}
    if head in ("nsp", "pretraining"):
        rows["cls.seq_relationship.{p}"] = "head.next.out.{p}"
    elif prefix == "bert.":
        skip["cls.seq_relationship.*"] = "a head that this architecture leaves out"
    if head == "classes":
        rows |= {a: f"head.classes.{b}.{{p}}" for a, b in CLASS_ROWS[prefix].items()}
    elif head in ("tags", "span"):
        rows[{"tags": "classifier.{p}", "span": "qa_outputs.{p}"}[head]] = f"head.{head}.out.{{p}}"
    return Table(rows, skip=skip, tied=tied, absent=absent, old=OLD, prefix=prefix)


OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
OTHERS = {
    "bert.": ("cls.predictions.*",),
    "roberta.": ("lm_head.*",),
    "distilbert.": ("vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*"),
}


def words(
    config: Any,
    rows: dict[str, str | Op],
    tied: dict[str, str],
    absent: dict[str, Absent],
    *,
    names: str,
    prefix: str,
) -> None:
    """The word head, named as in the line `names`.  Its last matrix may be the embedding's; its bias has a second name, which
    is another tensor where the matrix is its own, but not in files of transformers 4: these have the first name alone."""
    dense, norm = WORD_ROWS[names]
    last, bias = LAST_ROWS[names]
    rows[dense + ".{p}"] = "head.words.dense.{p}"
    rows[norm + ".{p}"] = "head.words.norm.{p}"
    second = bias != last + ".bias"
    if config.tie:
        rows[bias] = "head.words.out.bias"
        tied[last + ".weight"] = prefix + "embeddings.word_embeddings.weight"
        if second:
            tied[last + ".bias"] = bias
        return
    rows[last + ".{p}"] = "head.words.out.{p}"
    if second:
        rows[bias] = "head.words.spare"
        absent |= {last + ".bias": bias, bias: (config.vocab_size,)}
