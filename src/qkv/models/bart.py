"""BART (Lewis et al. 2020) and mBART (Liu et al. 2020): an encoder-decoder with learned positions and a norm on the embeddings.

BART is post-norm and starts from <eos>.  mBART is pre-norm with a final norm, embeddings x √C, and starts from a language."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..parts.block import Activation, StackConfig
from ..parts.embed import Embed, EmbedConfig
from ..parts.recurrent import in_sixteens
from ..shapes import Batch, Ids, States
from ..weights.table import Op, Table, flat
from .encoder import Head, HeadConfig, Problem, each, given
from .hf import PROBLEMS, THEIR_ACTS, Keys, their_labels
from .interface import Choices, Memory, Predictions, Term, Values
from .seq2seq import Ends, Tie, Translator, first_token, shifted
from .transformer import TransformerReader, TransformerWriter, begin

SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(encoder_layers=2, decoder_layers=2, d_model=128, n_heads=4, d_ff=256),
    "base": dict(encoder_layers=6, decoder_layers=6, d_model=768, n_heads=12, d_ff=3072),
    "large": dict(encoder_layers=12, decoder_layers=12, d_model=1024, n_heads=16, d_ff=4096),
    "mbart": dict(
        encoder_layers=12,
        decoder_layers=12,
        d_model=1024,
        n_heads=16,
        d_ff=4096,
        norm_first=True,
        scale_embedding=True,
    ),
}
HF = ("bart", "mbart")
PREFIX = "model."
HeadKind = Literal["lm", "classes", "span", "none"]
HEADS: dict[str, HeadKind] = {
    "Model": "none",
    "ForConditionalGeneration": "lm",
    "ForSequenceClassification": "classes",
    "ForQuestionAnswering": "span",
}


@dataclass(frozen=True, kw_only=True)
class BartConfig:
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 768
    encoder_layers: int = 6
    decoder_layers: int = 6
    n_heads: int = 12
    d_ff: int = 3072
    decoder_heads: int | None = None  # None: as the encoder
    decoder_ff: int | None = None
    max_positions: int = 1024
    activation: Activation = "gelu"
    norm_first: bool = False  # mBART: pre-norm with a final norm
    pattern: str | None = None  # who sees whom in both: "window(256) | global(1)"
    scale_embedding: bool = False  # embeddings x √C
    tie: bool = True  # source = target = output
    dropout: float = 0.1
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    head: HeadKind = "lm"
    labels: tuple[str, ...] = ()  # of head = "classes"
    problem: Problem = "one"
    head_dropout: float = 0.0
    start_id: int = 2  # what the decoder is fed first
    eos_id: int = 2
    pad_id: int = 0
    still: bool = True  # the vector of padding is not learned
    bos_id: int | None = None
    forced_bos_id: int | None = None  # the first token of every answer
    forced_eos_id: int | None = None  # the last token of an answer that reaches its limit

    def __post_init__(self) -> None:
        stack(self, decoder=False), stack(self, decoder=True)
        if self.head == "classes" and not self.labels:
            raise ConfigError(
                "head = 'classes' without labels",
                fix='name them: labels = ["negative", "positive"]',
                code="QKV-013",
            )


def stack(config: Any, *, decoder: bool) -> StackConfig:
    """The encoder or the decoder of a configuration with this module's names for sizes (BART, Marian)."""
    norm_first: bool = getattr(config, "norm_first", False)
    return StackConfig(
        n_layers=config.decoder_layers if decoder else config.encoder_layers,
        d_model=config.d_model,
        n_heads=(config.decoder_heads if decoder else None) or config.n_heads,
        d_ff=(config.decoder_ff if decoder else None) or config.d_ff,
        d_memory=config.d_model if decoder else None,
        causal=decoder,
        pattern=config.pattern,
        norm_first=norm_first,
        final_norm=norm_first,
        activation=config.activation,
        dropout=config.dropout,
        attn_dropout=config.attn_dropout,
        ff_dropout=config.ff_dropout,
    )


def embed(config: BartConfig) -> EmbedConfig:
    return EmbedConfig(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        positions="learned",
        max_positions=config.max_positions,
        offset=2,  # QUIRK: rows 0 and 1 of the position tables are never read; test_bart_positions_begin_at_row_two
        scale=config.d_model**0.5 if config.scale_embedding else 1.0,
        norm="layer",
        # QUIRK: the vector of padding learns nothing where it is read, only where it is an answer;
        # test_padding_learns_nothing_as_an_input
        still=config.pad_id if config.still else None,
        dropout=config.dropout,
    )


def assemble(
    config: Any, source: Embed, target: Embed, tie: Tie, banned: tuple[int, ...]
) -> Translator:
    """Two stacks between the embeddings and an output with a fixed bias (BART, Marian)."""
    ends = Ends(
        vocab_size=config.vocab_size,
        tie=tie,
        head=config.tie or config.head != "none",  # a bare model that ties has its output, too
        fixed_bias=config.head == "lm",
        start_id=config.start_id,
        eos_id=config.eos_id,
        pad_id=config.pad_id,
        banned=banned,
        max_positions=config.max_positions,
    )
    reader = TransformerReader(stack(config, decoder=False))
    writer = TransformerWriter(stack(config, decoder=True))
    net = Translator(source, target, reader, writer, ends)
    begin(reader.stack)
    begin(writer.stack)
    return net


def spare(net: nn.Module, config: Any) -> None:
    """QUIRK (transformers 5): without tied embeddings files hold a further (V, C) matrix, `shared`, that nothing reads.

    It is kept so that what we write is whole; test_the_spare_matrix_changes_nothing."""
    net.register_buffer("spare", torch.zeros(config.vocab_size, config.d_model))


def build(config: BartConfig) -> nn.Module:
    # without a head, or with one that reads no words, the output's matrix is no further tensor
    tie: Tie = "all" if config.tie else "none" if config.head == "lm" else "target"
    net = assemble(config, Embed(embed(config)), Embed(embed(config)), tie, banned=())
    made: nn.Module = net
    if config.head in ("classes", "span"):
        made = Answerer(net, config)
    if not config.tie:
        spare(made, config)
    return made


class Answerer(nn.Module):
    """Reads a text with the encoder, then again, shifted right, with the decoder, and answers from the decoder's states.

    classes: from the state at the text's last <eos> (Lewis et al. 2020, section 3.1).  span: from every state (3.2)."""

    source_rows = 16

    def __init__(self, net: Translator, config: BartConfig) -> None:
        super().__init__()
        self.source_embed, self.target_embed = net.source_embed, net.target_embed
        self.encoder, self.decoder = net.encoder, net.decoder
        classes, p = config.head == "classes", config.head_dropout
        made = HeadConfig(
            kind="classes" if classes else "span",
            n_labels=len(config.labels),
            problem=config.problem,
            inner="tanh" if classes else None,
            dropout=p if classes else 0.0,
            first_dropout=p,
        )
        self.head = Head(made, self.target_embed.token)
        self.start_id, self.eos_id, self.pad_id = net.start_id, net.eos_id, net.pad_id
        self.max_positions = net.max_positions
        self.wraps = config.norm_first  # mBART

    def encode(self, batch: Batch) -> Memory:
        """The decoder's states over the source itself; classes: the summary is the state at the last <eos>.

        Raises DataError where a row has none."""
        x = self.source_embed(batch.source)
        first: Memory = self.encoder(x, batch.keep, marked=batch.marked)
        states: States = self.decoder(self.target_embed(self.again(batch)), batch.keep, first)
        last = last_of(batch, self.eos_id) if self.head.kind == "classes" else batch.keep.sum(1) - 1
        return Memory(
            states, batch.keep, states[torch.arange(len(batch), device=last.device), last]
        )

    def again(self, batch: Batch) -> Ids:
        """The source shifted right by one; mBART begins with the text's last token, its language."""
        made = shifted(batch.source, first_token(self.start_id, self.target_embed))
        if self.wraps:
            last = batch.keep.sum(1, keepdim=True) - 1
            made[:, :1] = batch.source.gather(1, last)
        return made

    def labelled(self, memory: Memory) -> Tensor:
        """The labels of whole texts (B, labels)."""
        return in_sixteens(self.head.labels, memory.summary)[0]

    def logits(self, batch: Batch) -> Tensor:
        """classes: (B, labels).  span: (B, S, 2), first and last."""
        memory = self.encode(batch)
        if self.head.kind == "span":
            out: Tensor = self.head.labels(memory.states)
            return out
        return self.labelled(memory)

    def loss_inputs(
        self, batch: Batch, *, forcing: float = 1.0, rng: torch.Generator | None = None
    ) -> Term:
        label, memory, head = given(batch.label, "label"), self.encode(batch), self.head
        if head.kind == "span":
            first, last = head.labels(memory.states).unbind(-1)  # (B, S, 2) -> twice (B, S)
            return Choices.spans(first, last, batch.keep, label)
        if head.problem == "value":
            return Values(head.labels(memory.summary).flatten(), label.flatten())
        if head.problem == "many":
            return each(head.labels(memory.summary), label)
        states, out = head.labels.change(memory.summary), head.labels.out
        return Predictions(states, out.weight, out.bias, label, per="row", name="classes")


def last_of(batch: Batch, eos_id: int) -> Ids:
    """The place of the last <eos> of every row (B).  Raises DataError QKV-033 for rows without one."""
    ends = (batch.source == eos_id) & batch.keep
    if lacking := (~ends.any(1)).nonzero().flatten().tolist():
        raise DataError(
            f"a text without <eos> ({eos_id})",
            place=f"row {lacking[0]}",
            fix="end it as the tokenizer's frame does",
        )
    here = torch.arange(ends.shape[1], device=ends.device)
    return (here * ends).argmax(1)


# --- published checkpoints ------------------------------------------------------------------------


def from_hf(keys: Keys) -> BartConfig:
    kind: str = keys.take("model_type", "bart")
    word, many = ("Bart", 3) if kind == "bart" else ("MBart", 2)
    known = {word + name: head for name, head in HEADS.items()}
    head: HeadKind = keys.architecture(known, f"{word}ForConditionalGeneration")
    first = kind == "mbart"
    keys.expect("normalize_before", first)
    keys.expect("add_final_layer_norm", first)
    keys.expect("normalize_embedding", True)
    keys.expect("static_position_embeddings", False)
    keys.ignore("extra_pos_embeddings")  # transformers reads two whatever it says
    keys.expect("do_blenderbot_90_layernorm", False)
    bos, eos = keys.token("bos_token_id", 0), keys.token("eos_token_id", 2)
    start = keys.token("decoder_start_token_id", 2 if kind == "bart" else None)
    forced = keys.token("forced_bos_token_id")
    if keys.take("force_bos_token_to_be_generated", False) and forced is None:
        forced = bos
    eos = 2 if eos is None else eos
    made = sizes(keys)
    return BartConfig(
        **made,
        **padding(keys, 1, eos, made["vocab_size"]),
        norm_first=first,
        scale_embedding=keys.take("scale_embedding", False),
        tie=keys.take("tie_word_embeddings", True),
        head=head,
        labels=keys.labels(many) if head == "classes" else (),
        problem=problem(keys, many) if head == "classes" else "one",
        head_dropout=either(keys, "classifier_dropout", "classif_dropout", 0.0),
        start_id=next(i for i in (start, bos, eos) if i is not None),
        eos_id=eos,
        bos_id=bos,
        forced_bos_id=forced,
        forced_eos_id=keys.token("forced_eos_token_id", 2),
    )


def sizes(keys: Keys) -> dict[str, Any]:
    """The keys that BART's and Marian's files share."""
    keys.expect("is_encoder_decoder", True)
    keys.expect("is_decoder", False)
    keys.expect("add_cross_attention", False)
    keys.expect("pruned_heads", {})
    keys.ignore("encoder_layerdrop", "decoder_layerdrop")  # of learning: all layers answer
    keys.ignore("add_bias_logits")  # the bias is always in the file, and zero where it is not used
    keys.ignore("output_past", "save_step", "replacing_rate", "extra_layer_norm")
    keys.ignore("student_encoder_layers", "student_decoder_layers")  # of how it was distilled
    heads = either(keys, "encoder_attention_heads", "num_attention_heads", 16)
    ff = keys.take("encoder_ffn_dim", 4096)
    own_heads = keys.take("decoder_attention_heads", 16)
    own_ff = keys.take("decoder_ffn_dim", 4096)
    return {
        "vocab_size": keys.take("vocab_size", 50265),
        "d_model": either(keys, "d_model", "hidden_size", 1024),
        "encoder_layers": either(keys, "encoder_layers", "num_hidden_layers", 12),
        "decoder_layers": keys.take("decoder_layers", 12),
        "n_heads": heads,
        "d_ff": ff,
        "decoder_heads": None if own_heads == heads else own_heads,
        "decoder_ff": None if own_ff == ff else own_ff,
        "max_positions": keys.take("max_position_embeddings", 1024),
        "activation": keys.act("activation_function", "gelu"),
        "dropout": keys.take("dropout", 0.1),
        "attn_dropout": keys.take("attention_dropout", 0.0),
        "ff_dropout": keys.take("activation_dropout", 0.0),
    }


def padding(keys: Keys, default: int, eos: int, vocab_size: int) -> dict[str, Any]:
    """Without a padding id any id stands for it, and every vector is learned."""
    pad = keys.token("pad_token_id", default)
    return (
        {"pad_id": eos, "still": False}
        if pad is None
        else {"pad_id": keys.padding(pad, vocab_size)}
    )


def either(keys: Keys, name: str, alias: str, default: Any) -> Any:
    """A key that has two names.  Raises ConfigError QKV-012 where they differ."""
    value = keys.take(name, keys.take(alias, default))
    keys.expect(alias, value)
    return value


def problem(keys: Keys, many: int) -> Problem:
    """How the labels are to be learned; a single one is a number."""
    said = keys.values.get("problem_type")
    if said is None:
        return "value" if len(keys.labels(many)) == 1 else "one"
    made: Problem = keys.one_of("problem_type", PROBLEMS, "regression")  # type: ignore[assignment]
    return made


def to_hf(config: BartConfig) -> dict[str, Any]:
    kind, word = ("mbart", "MBart") if config.norm_first else ("bart", "Bart")
    name = next(name for name, head in HEADS.items() if head == config.head)
    made = {
        "model_type": kind,
        "architectures": [word + name],
        **their_sizes(config),
        "scale_embedding": config.scale_embedding,
        "tie_word_embeddings": config.tie,
        "classifier_dropout": config.head_dropout,
        "bos_token_id": config.bos_id,
    }
    return made | (their_labels(config) if config.head == "classes" else {})


def their_sizes(config: Any) -> dict[str, Any]:
    """The inverse of `sizes` and `padding`, and the ids of decoding."""
    return {
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.n_heads,
        "decoder_attention_heads": config.decoder_heads or config.n_heads,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.decoder_ff or config.d_ff,
        "max_position_embeddings": config.max_positions,
        "activation_function": THEIR_ACTS[config.activation],
        "dropout": config.dropout,
        "attention_dropout": config.attn_dropout,
        "activation_dropout": config.ff_dropout,
        "decoder_start_token_id": config.start_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id if config.still else None,
        "forced_bos_token_id": config.forced_bos_id,
        "forced_eos_token_id": config.forced_eos_id,
    }


def table(config: BartConfig) -> Table:
    rows = blocks()
    for theirs, ours, name in (
        ("encoder", "source_embed", "encoder"),
        ("decoder", "target_embed", "decoder"),
    ):
        rows[f"model.{theirs}.embed_positions.weight"] = f"{ours}.position.weight"
        rows[f"model.{theirs}.layernorm_embedding.{{p}}"] = f"{ours}.norm.{{p}}"
        if config.norm_first:
            rows[f"model.{theirs}.layer_norm.{{p}}"] = f"{name}.stack.norm.{{p}}"
    if config.head == "classes":
        rows["classification_head.dense.{p}"] = "head.classes.dense.{p}"
        rows["classification_head.out_proj.{p}"] = "head.classes.out.{p}"
    if config.head == "span":
        rows["qa_outputs.{p}"] = "head.span.out.{p}"
    return whole(config, rows, shared=True)


def blocks() -> dict[str, str | Op]:
    """The layers, which have the same names in BART's and Marian's files."""
    rows: dict[str, str | Op] = {}
    for side in ("encoder", "decoder"):
        theirs, ours = f"model.{side}.layers.{{i}}", f"{side}.stack.blocks.{{i}}"
        looks = {"self_attn": "attn"} | ({"encoder_attn": "cross"} if side == "decoder" else {})
        for their, our in looks.items():
            rows[f"{theirs}.{their}.{{q_proj,k_proj,v_proj,out_proj}}.{{p}}"] = (
                f"{ours}.{our}.{{q,k,v,o}}.{{p}}"
            )
            rows[f"{theirs}.{their}_layer_norm.{{p}}"] = f"{ours}.{our}_norm.{{p}}"
        rows[f"{theirs}.{{fc1,fc2}}.{{p}}"] = f"{ours}.ff.{{up,down}}.{{p}}"
        rows[f"{theirs}.final_layer_norm.{{p}}"] = f"{ours}.ff_norm.{{p}}"
    return rows


def whole(config: Any, rows: dict[str, str | Op], *, shared: bool, **more: Any) -> Table:
    """The rows, with the vocabulary's matrices and the fixed bias.  shared: both sides have one vocabulary."""
    source, target = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    first, tied = "model.shared.weight", {}
    lm = config.head == "lm"
    if config.tie and shared:
        rows[first] = "source_embed.token.weight"
        tied = {name: first for name in (source, target, "lm_head.weight")}
    else:
        rows[source], rows[target] = "source_embed.token.weight", "target_embed.token.weight"
        if config.tie:
            tied = {"lm_head.weight": target}
        elif lm:
            rows["lm_head.weight"] = "head.weight"
        if shared:
            rows[first] = "spare"
    absent = {}
    if lm:
        width = config.vocab_size if shared else config.target_vocab_size
        rows["final_logits_bias"] = flat("head.bias")
        absent = {"final_logits_bias": (1, width)}
    skip = {"model.*coder.version": "a mark of the program that trained it"}
    return Table(rows, skip=skip, tied=tied, absent=absent, **more)
