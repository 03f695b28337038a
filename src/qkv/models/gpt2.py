"""GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions and a final norm."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..parts.block import Activation, StackConfig
from ..parts.embed import EmbedConfig
from ..weights.table import Op, Table, split, transpose
from .decoder import DecoderEnds, LanguageModel
from .hf import THEIR_ACTS, Keys, eos_ids, their_eos, whole

SIZES = {
    "nano": dict(n_layers=4, d_model=128, n_heads=4, max_positions=64),
    "small": dict(n_layers=12, d_model=768, n_heads=12),
    "medium": dict(n_layers=24, d_model=1024, n_heads=16),
    "large": dict(n_layers=36, d_model=1280, n_heads=20),
    "xl": dict(n_layers=48, d_model=1600, n_heads=25),
}
HF = ("gpt2",)
PREFIX = "transformer."


@dataclass(frozen=True, kw_only=True)
class Gpt2Config:
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int | None = None  # None: 4 x d_model
    max_positions: int = 1024
    activation: Activation = "gelu_tanh"
    norm_eps: float = 1e-5
    bias: bool = True
    tie: bool = True
    head: Literal["lm", "none"] = "lm"  # none: a bare GPT2Model, states only
    unscaled: bool = False  # scores are q·k, not q·k / √D
    scale_by_layer: bool = False  # layer i divides its scores by i + 1 (Mistral's kin of Stanford)
    upcast: bool = (
        False  # transformers makes scores in float32 whatever the type; qkv does so always
    )
    pattern: str | None = None  # who sees whom of what came before: "window(256) | global(1)"
    dropout: float = 0.1
    embed_dropout: float | None = None  # None: as dropout
    attn_dropout: float = 0.1
    bos_id: int | None = None
    eos_id: int | None = 2  # None: answers end at their limit only
    more_eos: tuple[int, ...] = ()  # other ids that end an answer
    pad_id: int | None = 0  # None: any id stands for padding, nobody looks

    def __post_init__(self) -> None:
        self.stack()

    @property
    def first_dropout(self) -> float:
        return self.dropout if self.embed_dropout is None else self.embed_dropout

    def stack(self) -> StackConfig:
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            causal=True,
            pattern=self.pattern,
            norm_first=True,
            final_norm=True,
            norm_eps=self.norm_eps,
            activation=self.activation,
            bias=self.bias,
            scale=1.0 if self.unscaled else None,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
        )


def build(config: Gpt2Config) -> LanguageModel:
    embed = EmbedConfig(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        positions="learned",
        max_positions=config.max_positions,
        dropout=config.first_dropout,
    )
    net = LanguageModel(embed, config.stack(), DecoderEnds.of(config))
    for i, block in enumerate(net.decoder.each if config.scale_by_layer else ()):
        block.attn.scale /= i + 1
    begin(net, config.n_layers)
    return net


def begin(net: nn.Module, n_layers: int) -> None:
    """N(0, 0.02); what is added to the residual stream is smaller by √(2 layers) (section 2.3)."""
    for name, p in net.named_parameters():
        if p.dim() > 1:
            added = name.endswith(("o.weight", "down.weight"))
            nn.init.normal_(p, std=0.02 / (2 * n_layers) ** 0.5 if added else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(p)


def from_hf(keys: Keys) -> Gpt2Config:
    heads = {"GPT2LMHeadModel": "lm", "GPT2Model": "none"}
    keys.expect("add_cross_attention", False)
    keys.expect("is_encoder_decoder", False)
    keys.expect("pruned_heads", {})
    keys.ignore("is_decoder")  # it always is one
    keys.ignore("n_ctx", "summary_type", "summary_use_proj", "summary_activation")
    keys.ignore("summary_proj_to_labels", "summary_first_dropout")  # of a head not loaded here
    eos, more = eos_ids(keys, 50256)
    dropout, embedded = keys.take("resid_pdrop", 0.1), keys.take("embd_pdrop", 0.1)
    return Gpt2Config(
        vocab_size=keys.take("vocab_size", 50257),
        d_model=keys.take("n_embd", 768),
        n_layers=keys.take("n_layer", 12),
        n_heads=keys.take("n_head", 12),
        d_ff=whole(keys, "n_inner"),
        max_positions=keys.take("n_positions", 1024),
        activation=keys.act("activation_function", "gelu_new"),
        norm_eps=keys.take("layer_norm_epsilon", 1e-5),
        tie=keys.take("tie_word_embeddings", True),
        head=keys.architecture(heads, "GPT2LMHeadModel"),
        unscaled=not keys.take("scale_attn_weights", True),
        scale_by_layer=keys.take("scale_attn_by_inverse_layer_idx", False),
        upcast=keys.take("reorder_and_upcast_attn", False),
        embed_dropout=None if embedded == dropout else embedded,
        dropout=dropout,
        attn_dropout=keys.take("attn_pdrop", 0.1),
        bos_id=keys.token("bos_token_id", 50256),
        eos_id=eos,
        more_eos=more,
        pad_id=keys.token("pad_token_id"),
    )


def to_hf(config: Gpt2Config) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel" if config.head == "lm" else "GPT2Model"],
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "n_positions": config.max_positions,
        "activation_function": THEIR_ACTS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie,
        "scale_attn_weights": not config.unscaled,
        "scale_attn_by_inverse_layer_idx": config.scale_by_layer,
        "reorder_and_upcast_attn": config.upcast,
        "embd_pdrop": config.first_dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.attn_dropout,
        "bos_token_id": config.bos_id,
        "eos_token_id": their_eos(config),
        "pad_token_id": config.pad_id,
    }


def table(config: Gpt2Config) -> Table:
    """Their products are (in, out), and q, k, v are one."""
    rows: dict[str, str | Op] = {
        "transformer.wte.weight": "embed.token.weight",
        "transformer.wpe.weight": "embed.position.weight",
        "transformer.ln_f.{p}": "decoder.norm.{p}",
        "transformer.h.{i}.ln_1.{p}": "decoder.blocks.{i}.attn_norm.{p}",
        "transformer.h.{i}.ln_2.{p}": "decoder.blocks.{i}.ff_norm.{p}",
        "transformer.h.{i}.attn.c_attn.{p}": split(
            "decoder.blocks.{i}.attn.{q,k,v}.{p}", transposed=True
        ),
        "transformer.h.{i}.attn.c_proj.{p}": transpose("decoder.blocks.{i}.attn.o.{p}"),
        "transformer.h.{i}.mlp.c_fc.{p}": transpose("decoder.blocks.{i}.ff.up.{p}"),
        "transformer.h.{i}.mlp.c_proj.{p}": transpose("decoder.blocks.{i}.ff.down.{p}"),
    }
    tied = config.tie or config.head == "none"
    if not tied:
        rows["lm_head.weight"] = "head.weight"
    return Table(
        rows,
        skip={
            "transformer.h.*.attn.bias": "the causal mask, stored by old versions",
            "transformer.h.*.attn.masked_bias": "the mask's value, stored by old versions",
        },
        tied={"lm_head.weight": "transformer.wte.weight"} if tied else None,
    )
