"""Marian's Transformer (Junczys-Dowmunt et al. 2018) as OPUS-MT publishes it (Tiedemann & Thottingal 2020).

Post-norm, silu, sinusoids with all sines before all cosines, embeddings x √C; the decoder starts from padding."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..parts.block import Activation
from ..parts.embed import Embed, EmbedConfig
from ..parts.positions import sinusoid
from ..weights.table import Table
from . import bart
from .hf import Keys
from .seq2seq import Tie

SIZES = {
    "tiny": dict(encoder_layers=2, decoder_layers=2, d_model=128, n_heads=4, d_ff=256),
    "base": dict(encoder_layers=6, decoder_layers=6, d_model=512, n_heads=8, d_ff=2048),
    "big": dict(encoder_layers=6, decoder_layers=6, d_model=1024, n_heads=16, d_ff=4096),
}
HF = ("marian",)
PREFIX = "model."


@dataclass(frozen=True, kw_only=True)
class MarianConfig:
    vocab_size: int = 0  # 0: taken from the tokenizer
    target_vocab_size: int | None = None  # None: both languages share one vocabulary
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    n_heads: int = 8
    d_ff: int = 2048
    decoder_heads: int | None = None  # None: as the encoder
    decoder_ff: int | None = None
    max_positions: int = 512
    activation: Activation = "silu"
    pattern: str | None = None  # who sees whom in both: "window(256) | global(1)"
    scale_embedding: bool = True  # embeddings x √C
    tie: bool = True  # output = target (= source, where they share a vocabulary)
    dropout: float = 0.1
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    head: Literal["lm", "none"] = "lm"
    start_id: int = 0  # padding
    eos_id: int = 2
    pad_id: int = 0
    still: bool = True  # the vector of padding is not learned
    bos_id: int | None = None
    forced_bos_id: int | None = None  # the first token of every answer
    forced_eos_id: int | None = None  # the last token of an answer that reaches its limit

    def __post_init__(self) -> None:
        bart.stack(self, decoder=False), bart.stack(self, decoder=True)


def embed(config: MarianConfig) -> EmbedConfig:
    return EmbedConfig(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        positions="halves",
        # QUIRK: waves go on for ever, but not what was learned; test_texts_beyond_the_positions_are_refused
        max_positions=config.max_positions,
        scale=config.d_model**0.5 if config.scale_embedding else 1.0,
        # QUIRK: the start token is padding, whose vector learns nothing where it is read;
        # test_padding_learns_nothing_as_an_input
        still=config.pad_id if config.still else None,
        dropout=config.dropout,
    )


def build(config: MarianConfig) -> nn.Module:
    source, shared = embed(config), config.target_vocab_size is None
    target = replace(source, vocab_size=config.target_vocab_size or config.vocab_size)
    tie: Tie = "none" if config.head == "lm" else "target"
    if config.tie:
        tie = "all" if shared else "target"
    net = bart.assemble(config, Embed(source), Embed(target), tie, banned=(config.pad_id,))
    if not config.tie and shared:
        bart.spare(net, config)
    return net


def from_hf(keys: Keys) -> MarianConfig:
    heads = {"MarianMTModel": "lm", "MarianModel": "none"}
    head = keys.architecture(heads, "MarianMTModel")
    keys.expect("normalize_before", False)
    keys.expect("add_final_layer_norm", False)
    keys.expect("normalize_embedding", False)
    keys.expect("static_position_embeddings", True)
    keys.expect("do_blenderbot_90_layernorm", False)
    keys.ignore("extra_pos_embeddings")  # of tables that are computed
    keys.ignore("classifier_dropout", "classif_dropout")  # of a head this family does not have
    made = bart.sizes(keys)
    vocab = made["vocab_size"] = keys.take("vocab_size", 58101)
    own = keys.take("decoder_vocab_size", vocab)
    eos = keys.token("eos_token_id", 0)
    shared = keys.take("share_encoder_decoder_embeddings", True)
    least = vocab if shared else min(vocab, own)
    pad = bart.padding(keys, 58100, eos := 0 if eos is None else eos, least)
    start = keys.token("decoder_start_token_id", 58100)
    return MarianConfig(
        **made,
        **pad,
        target_vocab_size=None if shared else own,
        scale_embedding=keys.take("scale_embedding", False),
        tie=keys.take("tie_word_embeddings", True),
        head=head,
        start_id=pad["pad_id"] if start is None else start,
        eos_id=eos,
        bos_id=keys.token("bos_token_id"),
        forced_bos_id=keys.token("forced_bos_token_id"),
        forced_eos_id=keys.token("forced_eos_token_id", 0),
    )


def to_hf(config: MarianConfig) -> dict[str, Any]:
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel" if config.head == "lm" else "MarianModel"],
        **bart.their_sizes(config),
        "decoder_vocab_size": config.target_vocab_size or config.vocab_size,
        "share_encoder_decoder_embeddings": config.target_vocab_size is None,
        "scale_embedding": config.scale_embedding,
        "tie_word_embeddings": config.tie,
        "bos_token_id": config.bos_id,
    }


def table(config: MarianConfig) -> Table:
    """Sinusoids are computed; where a file holds them they must be these."""

    def waves() -> Tensor:
        with torch.device("cpu"):
            return sinusoid(config.max_positions, config.d_model, halves=True)

    known = {f"model.{side}.embed_positions.weight": waves for side in ("encoder", "decoder")}
    shared = config.target_vocab_size is None
    return bart.whole(config, bart.blocks(), shared=shared, known=known)
