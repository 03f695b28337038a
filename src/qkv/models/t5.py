"""T5 (Raffel et al. 2020), version 1.1 and mT5 (Xue et al. 2021): relative positions only, RMS pre-norm, no bias.

The published code clamps fp16 states that overflow; qkv computes in fp32 or bf16, which do not, and clamps nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..parts.block import Activation, StackConfig
from ..parts.embed import Embed, EmbedConfig
from ..parts.positions import BucketBias, Buckets
from ..shapes import Batch, Logits
from ..weights.table import Op, Table
from .hf import ACTS, THEIR_ACTS, Keys
from .interface import Memory
from .seq2seq import Ends, NoHead, Translator
from .transformer import TransformerReader, TransformerWriter


def _size(layers: int, d_model: int, n_heads: int, d_head: int, d_ff: int) -> dict[str, Any]:
    rows = dict(d_model=d_model, n_heads=n_heads, d_head=d_head, d_ff=d_ff)
    return rows | dict(encoder_layers=layers, decoder_layers=layers)


V1_1 = dict(activation="gelu_tanh", gated=True, tie="inputs", scale_head=False)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": _size(2, 128, 4, 32, 256),
    "small": _size(6, 512, 8, 64, 2048),
    "base": _size(12, 768, 12, 64, 3072),
    "large": _size(24, 1024, 16, 64, 4096),
    "3b": _size(24, 1024, 32, 128, 16384),
    "11b": _size(24, 1024, 128, 128, 65536),
    "v1.1-tiny": _size(2, 128, 4, 32, 192) | V1_1,
    "v1.1-small": _size(8, 512, 6, 64, 1024) | V1_1,
    "v1.1-base": _size(12, 768, 12, 64, 2048) | V1_1,
    "v1.1-large": _size(24, 1024, 16, 64, 2816) | V1_1,
    "v1.1-xl": _size(24, 2048, 32, 64, 5120) | V1_1,
    "v1.1-xxl": _size(24, 4096, 64, 64, 10240) | V1_1,
}
HF = ("t5", "mt5")
PREFIX = ""
NAMES = {"t5": "T5", "mt5": "MT5"}
HEADS = {"lm": "ForConditionalGeneration", "none": "Model", "encoder": "EncoderModel"}
# QUIRK: "gated-gelu" has always meant the tanh form; test_every_feed_forward_of_theirs
FEED_FORWARD: dict[str, str] = {
    **ACTS,
    **{f"gated-{theirs}": f"gated-{ours}" for theirs, ours in ACTS.items()},
    "gated-gelu": "gated-gelu_tanh",
}
SHARED = "shared.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
OUTPUT = "lm_head.weight"


@dataclass(frozen=True, kw_only=True)
class T5Config:
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 512
    n_heads: int = 8
    d_head: int = 64  # n_heads x d_head need not be d_model
    d_ff: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    buckets: int = 32  # of distances: half of them one token wide
    far: int = 128  # tokens; from here on, the last bucket
    activation: Activation = "relu"
    pattern: str | None = None  # who sees whom in both: "window(256) | global(1)"
    gated: bool = False
    norm_eps: float = 1e-6
    tie: Literal["all", "inputs"] = "all"  # inputs: the output has a matrix of its own (1.1)
    scale_head: bool = True  # states x C ** -0.5 before the output; 1.1 and mT5: no
    head: Literal["lm", "none", "encoder"] = "lm"  # none: states only; encoder: no decoder either
    kind: Literal["t5", "mt5"] = "t5"  # whose files it is read from and written as
    dropout: float = 0.1
    start_id: int | None = None  # None: padding
    eos_id: int = 2
    pad_id: int = 0

    def __post_init__(self) -> None:
        self.stack(decoder=False)
        self.stack(decoder=True)

    def stack(self, *, decoder: bool) -> StackConfig:
        return StackConfig(
            n_layers=self.decoder_layers if decoder else self.encoder_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_head=self.d_head,
            d_ff=self.d_ff,
            d_memory=self.d_model if decoder else None,
            causal=decoder,
            pattern=self.pattern,
            norm="rms",
            norm_eps=self.norm_eps,
            norm_first=True,
            final_norm=True,
            activation=self.activation,
            gated=self.gated,
            bias=False,
            relative=Buckets(self.buckets, self.far),
            scale=1.0,
            dropout=self.dropout,
            attn_dropout=self.dropout,
            ff_dropout=self.dropout,
        )

    def embed(self) -> EmbedConfig:
        return EmbedConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            positions="none",
            dropout=self.dropout,
        )

    def ends(self) -> Ends:
        return Ends(
            vocab_size=self.vocab_size,
            tie=self.tie if self.head == "lm" else "all",
            head=self.head == "lm",
            scale=self.d_model**-0.5 if self.scale_head and self.head == "lm" else 1.0,
            start_id=self.pad_id if self.start_id is None else self.start_id,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
            banned=(),  # the original's search bans nothing, not even padding
        )


class T5Encoder(nn.Module):
    """The reading half alone."""

    source_rows = 1

    def __init__(self, embed: Embed, reader: nn.Module, ends: Ends) -> None:
        super().__init__()
        self.source_embed, self.encoder, self.head = embed, reader, NoHead()
        self.eos_id, self.pad_id, self.max_positions = ends.eos_id, ends.pad_id, None

    def encode(self, batch: Batch) -> Memory:
        x = self.source_embed(batch.source)
        memory: Memory = self.encoder(x, batch.keep, marked=batch.marked)
        return memory

    def logits(self, batch: Batch) -> Logits:
        """Raises UsageError: there is no output."""
        return self.head(self.encode(batch).states)  # type: ignore[no-any-return]


def build(config: T5Config) -> nn.Module:
    embed = Embed(config.embed())
    reader = TransformerReader(config.stack(decoder=False), config.dropout)
    net: nn.Module
    if config.head == "encoder":
        net = T5Encoder(embed, reader, config.ends())
    else:
        writer = TransformerWriter(config.stack(decoder=True), config.dropout)
        net = Translator(embed, Embed(config.embed()), reader, writer, config.ends())
    begin(net, config)
    return net


def begin(net: nn.Module, config: T5Config) -> None:
    """Normal weights with the deviations of the original code: (fan in)^-½, and q D^-½ less, for what is not scaled.

    Vectors of tokens have deviation 1; states x C^-½, or an output matrix of its own of C^-½, meet them at the end."""
    C, D = config.d_model, config.d_head
    deviations = {
        "q": (C * D) ** -0.5,
        "o": (config.n_heads * D) ** -0.5,
        "down": config.d_ff**-0.5,
    }
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=deviations.get(name.rsplit(".", 1)[-1], C**-0.5))
        elif isinstance(module, BucketBias):
            nn.init.normal_(module.table.weight, std=C**-0.5)
    nn.init.normal_(net.source_embed.token.weight)  # type: ignore[union-attr, arg-type]


def from_hf(keys: Keys) -> T5Config:
    kind = keys.take("model_type", "t5")
    t5, known = kind == "t5", {NAMES[kind] + tail: head for head, tail in HEADS.items()}
    head = keys.architecture({**known, "T5WithLMHeadModel": "lm"}, NAMES[kind] + HEADS["lm"])
    keys.expect("is_encoder_decoder", True, *([False] if head == "encoder" else []))
    keys.expect("is_decoder", False)
    keys.expect("add_cross_attention", False)
    keys.expect("tie_encoder_decoder", False)
    keys.expect("pruned_heads", {})
    keys.ignore("n_positions", "output_past", "cross_attention_hidden_size")  # nothing reads them
    keys.ignore("classifier_dropout")  # of a head not loaded here
    said = keys.one_of("feed_forward_proj", FEED_FORWARD, "relu" if t5 else "gated-gelu")
    act = said.removeprefix("gated-")
    layers = keys.take("num_layers", 6 if t5 else 8)
    tied = keys.take("tie_word_embeddings", True)
    scaled = keys.take("scale_decoder_outputs", tied)
    pad = keys.token("pad_token_id", 0)
    pad, eos = 0 if pad is None else pad, keys.token("eos_token_id", 1)
    start = keys.token("decoder_start_token_id", None if t5 else 0)
    return T5Config(
        vocab_size=keys.take("vocab_size", 32128 if t5 else 250112),
        d_model=keys.take("d_model", 512),
        n_heads=keys.take("num_heads", 8 if t5 else 6),
        d_head=keys.take("d_kv", 64),
        d_ff=keys.take("d_ff", 2048 if t5 else 1024),
        encoder_layers=layers,
        decoder_layers=keys.take("num_decoder_layers", layers),
        buckets=keys.take("relative_attention_num_buckets", 32),
        far=keys.take("relative_attention_max_distance", 128),
        activation=keys.act("dense_act_fn", THEIR_ACTS[act]),
        gated=keys.take("is_gated_act", act != said),
        norm_eps=keys.take("layer_norm_epsilon", 1e-6),
        tie="all" if tied or head != "lm" else "inputs",
        scale_head=scaled and t5,  # mT5 never scales, whatever is tied
        head=head,
        kind=kind,
        dropout=keys.take("dropout_rate", 0.1),
        start_id=pad if start is None else start,
        eos_id=1 if eos is None else eos,
        pad_id=pad,
    )


def to_hf(config: T5Config) -> dict[str, Any]:
    word = THEIR_ACTS[config.activation]
    proj = "gated-" + word.removesuffix("_new") if config.gated else word
    made = {
        "model_type": config.kind,
        "architectures": [NAMES[config.kind] + HEADS[config.head]],
        "is_encoder_decoder": config.head != "encoder",
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "num_heads": config.n_heads,
        "d_kv": config.d_head,
        "d_ff": config.d_ff,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.far,
        "feed_forward_proj": proj,
        "dense_act_fn": word,
        "is_gated_act": config.gated,
        "layer_norm_epsilon": config.norm_eps,
        "dropout_rate": config.dropout,
        "tie_word_embeddings": config.tie == "all",
        "decoder_start_token_id": config.ends().start_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
    }
    return made | ({"scale_decoder_outputs": config.scale_head} if config.kind == "t5" else {})


def fitted(config: T5Config, theirs: Mapping[str, Tensor]) -> T5Config:
    """Tied or not, as the tensors say.

    QUIRK (transformers 5): config.json says tied whatever it was; two different matrices in the file are then not
    tied, and one missing or equal is (test_the_tensors_tell_whether_the_output_is_tied)."""
    if config.head != "lm" or config.tie != "all" or OUTPUT not in theirs:
        return config
    first = next((name for name in (SHARED, *COPIES) if name in theirs), OUTPUT)
    same = first == OUTPUT or torch.equal(theirs[first], theirs[OUTPUT])
    return replace(config, tie="all" if same else "inputs")


def table(config: T5Config) -> Table:
    """Their decoder's feed-forward network is the third layer of a block, their encoder's the second."""
    attention = {"0.SelfAttention": "attn", "1.EncDecAttention": "cross"}
    rows: dict[str, str | Op] = {
        SHARED: "source_embed.token.weight",
        "{side}.final_layer_norm.weight": "{side}.stack.norm.weight",
        "{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "{side}.stack.relative.table.weight",
        "{side}.block.{i}.layer.0.layer_norm.weight": "{side}.stack.blocks.{i}.attn_norm.weight",
        "decoder.block.{i}.layer.1.layer_norm.weight": "decoder.stack.blocks.{i}.cross_norm.weight",
    }
    for theirs, ours in attention.items():
        layer = f"{{side}}.block.{{i}}.layer.{theirs}.{{q,k,v,o}}.weight"
        rows[layer] = f"{{side}}.stack.blocks.{{i}}.{ours}.{{q,k,v,o}}.weight"
    for side, n in (("encoder", 1), ("decoder", 2)):
        layer, block = f"{side}.block.{{i}}.layer.{n}", f"{side}.stack.blocks.{{i}}"
        rows[f"{layer}.layer_norm.weight"] = f"{block}.ff_norm.weight"
        if config.gated:
            rows[f"{layer}.DenseReluDense.{{wi_0,wi_1,wo}}.weight"] = (
                f"{block}.ff.{{gate,up,down}}.weight"
            )
        else:
            rows[f"{layer}.DenseReluDense.{{wi,wo}}.weight"] = f"{block}.ff.{{up,down}}.weight"
    skip = {
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": "never read: cross attention has no positions"
    }
    tied = dict.fromkeys(COPIES, SHARED)
    if config.head == "encoder":
        skip = {"decoder.*": "an encoder alone", OUTPUT: "an encoder alone"}
        tied = {COPIES[0]: SHARED}
    elif config.head == "lm" and config.tie == "all":
        tied[OUTPUT] = SHARED
    elif config.head == "lm":
        rows[OUTPUT] = "head.weight"
    return Table(rows, skip=skip, tied=tied)
