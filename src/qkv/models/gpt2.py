"""GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions and a final norm."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..parts.block import Activation, StackConfig
from ..parts.embed import EmbedConfig
from ..weights.table import Op, Table, split, transpose
from .decoder import DecoderEnds, LanguageModel
from .hf import Keys

SIZES = {
    "nano": dict(n_layers=4, d_model=128, n_heads=4, max_positions=64),
    "small": dict(n_layers=12, d_model=768, n_heads=12),
    "medium": dict(n_layers=24, d_model=1024, n_heads=16),
    "large": dict(n_layers=36, d_model=1280, n_heads=20),
    "xl": dict(n_layers=48, d_model=1600, n_heads=25),
}
HF = ("gpt2",)
PREFIX = "transformer."
THEIRS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


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
    dropout: float = 0.1
    attn_dropout: float = 0.1
    bos_id: int | None = None
    eos_id: int = 2
    pad_id: int = 0

    def __post_init__(self) -> None:
        self.stack()

    def stack(self) -> StackConfig:
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            causal=True,
            norm_first=True,
            final_norm=True,
            norm_eps=self.norm_eps,
            activation=self.activation,
            bias=self.bias,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
        )


def build(config: Gpt2Config) -> LanguageModel:
    embed = EmbedConfig(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        positions="learned",
        max_positions=config.max_positions,
        dropout=config.dropout,
    )
    ends = DecoderEnds(
        tie=config.tie,
        bos_id=config.bos_id,
        eos_id=config.eos_id,
        pad_id=config.pad_id,
        max_positions=config.max_positions,
    )
    net = LanguageModel(embed, config.stack(), ends)
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
    keys.architecture({"GPT2LMHeadModel": "lm"}, "GPT2LMHeadModel")
    keys.expect("scale_attn_weights", True)
    keys.expect("scale_attn_by_inverse_layer_idx", False)
    keys.expect("add_cross_attention", False)
    keys.expect("is_encoder_decoder", False)
    keys.ignore("reorder_and_upcast_attn")  # the same numbers in another precision
    keys.ignore("n_ctx", "summary_type", "summary_use_proj", "summary_activation")
    keys.ignore("summary_proj_to_labels", "summary_first_dropout")  # of a head not loaded here
    dropout = keys.take("resid_pdrop", 0.1)
    keys.ignore("embd_pdrop")
    bos = keys.token("bos_token_id", 50256)
    eos = keys.token("eos_token_id", 50256)
    pad = keys.token("pad_token_id")
    eos = 50256 if eos is None else eos
    return Gpt2Config(
        vocab_size=keys.take("vocab_size", 50257),
        d_model=keys.take("n_embd", 768),
        n_layers=keys.take("n_layer", 12),
        n_heads=keys.take("n_head", 12),
        d_ff=keys.take("n_inner", None),
        max_positions=keys.take("n_positions", 1024),
        activation=keys.one_of("activation_function", THEIRS, "gelu_new"),  # type: ignore[arg-type]
        norm_eps=keys.take("layer_norm_epsilon", 1e-5),
        tie=keys.take("tie_word_embeddings", True),
        dropout=dropout,
        attn_dropout=keys.take("attn_pdrop", 0.1),
        bos_id=bos,
        eos_id=eos,
        pad_id=eos if pad is None else pad,
    )


def to_hf(config: Gpt2Config) -> dict[str, Any]:
    words = {ours: theirs for theirs, ours in reversed(THEIRS.items())}
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "n_positions": config.max_positions,
        "activation_function": words[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attn_dropout,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
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
    if not config.tie:
        rows["lm_head.weight"] = "head.weight"
    return Table(
        rows,
        skip={
            "transformer.h.*.attn.bias": "the causal mask, stored by old versions",
            "transformer.h.*.attn.masked_bias": "the mask's value, stored by old versions",
        },
        tied={"lm_head.weight": "transformer.wte.weight"} if config.tie else None,
    )
