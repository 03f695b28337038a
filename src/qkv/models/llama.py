"""Llama and its kin (Touvron et al. 2023): rotary positions, RMS norms, a gated silu, few key heads.

Mistral, Qwen2 and Qwen3 are the same network; what differs is a row of KINDS."""

from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigError
from ..parts.block import Activation, StackConfig
from ..parts.embed import EmbedConfig
from ..parts.positions import Rotary
from ..weights.table import Table
from .decoder import DecoderEnds, LanguageModel
from .gpt2 import begin
from .hf import THEIR_ACTS, Keys, eos_ids, their_eos, whole

SIZES = {
    "nano": dict(n_layers=4, d_model=128, n_heads=4, n_kv_heads=2, max_positions=256),
    "small": dict(n_layers=12, d_model=768, n_heads=12, n_kv_heads=4),
    "1b": dict(n_layers=16, d_model=2048, n_heads=32, n_kv_heads=8, d_ff=8192),
    "7b": dict(n_layers=32, d_model=4096, n_heads=32, d_ff=11008),
}
HF = ("llama", "mistral", "qwen2", "qwen3")
PREFIX = "model."


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one of the four differs: what its files mean where they say nothing, and what it may have."""

    name: str  # of their classes
    vocab_size: int
    d_ff: int
    max_positions: int
    n_kv_heads: int | None = None
    d_head: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    biases: tuple[bool, ...] = (False,)  # on q, k, v
    out_bias: bool = True  # on o too, where q, k, v have one
    ff_biases: tuple[bool, ...] = (False,)
    windows: Literal["none", "all", "some"] = "none"  # which layers may have one
    qk_norm: bool = False


KINDS = {
    "llama": Kind(
        name="Llama",
        vocab_size=32000,
        d_ff=11008,
        max_positions=2048,
        bos_id=1,
        eos_id=2,
        biases=(False, True),
        ff_biases=(False, True),
    ),
    "mistral": Kind(
        name="Mistral",
        vocab_size=32000,
        d_ff=14336,
        max_positions=131072,
        n_kv_heads=8,
        bos_id=1,
        eos_id=2,
        windows="all",
    ),
    "qwen2": Kind(
        name="Qwen2",
        vocab_size=151936,
        d_ff=22016,
        max_positions=32768,
        n_kv_heads=32,
        biases=(True,),
        out_bias=False,
        windows="some",
    ),
    "qwen3": Kind(
        name="Qwen3",
        vocab_size=151936,
        d_ff=22016,
        max_positions=32768,
        n_kv_heads=32,
        d_head=128,
        biases=(False, True),
        windows="some",
        qk_norm=True,
    ),
}


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    kind: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    vocab_size: int = 0  # 0: taken from the tokenizer
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    n_kv_heads: int | None = None  # None: n_heads
    d_head: int | None = None  # None: d_model / n_heads
    d_ff: int | None = None  # None: 8/3 x d_model, up to the next multiple of 64 (section 2.2)
    max_positions: int = 2048
    rotary: Rotary = Rotary()
    window: int | None = None  # a token sees this many, itself among them; None: all
    window_layers: tuple[int, ...] | None = None  # the layers that have it; None: all
    pattern: str | None = None  # who sees whom, within the window: "window(256) | global(1)"
    activation: Activation = "silu"
    norm_eps: float = 1e-6
    bias: bool | None = None  # on q, k, v; None: as its kind has it
    ff_bias: bool = False
    tie: bool = False
    head: Literal["lm", "none"] = "lm"  # none: a bare stack, states only
    dropout: float = 0.0
    attn_dropout: float = 0.0
    bos_id: int | None = 1
    eos_id: int | None = 2  # None: answers end at their limit only
    more_eos: tuple[int, ...] = ()  # other ids that end an answer
    pad_id: int | None = 0  # its vector is not learned; None: any id stands for padding

    def __post_init__(self) -> None:
        kind = KINDS[self.kind]
        for name, value, known in (
            ("bias", self.qkv_bias, kind.biases),
            ("ff_bias", self.ff_bias, kind.ff_biases),
            ("window", self.window is not None, (False,) if kind.windows == "none" else (False, True)),
            ("window_layers", self.window_layers is not None, (False,) if kind.windows != "some" else (False, True)),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(
                    f"{name} of a {self.kind} cannot be set (got {getattr(self, name)!r})",
                    fix=f"leave {name} out, or choose another kind: {', '.join(KINDS)}",
                    code="QKV-013",
                )
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window must be at least 1 (got {self.window})", fix="try window=64")
        self.stack()

    @property
    def qkv_bias(self) -> bool:
        return KINDS[self.kind].biases[0] if self.bias is None else self.bias

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The farthest distance each layer sees."""
        if self.window is None:
            return ()
        layers = range(self.n_layers) if self.window_layers is None else self.window_layers
        return tuple(self.window - 1 if i in layers else None for i in range(self.n_layers))

    def stack(self) -> StackConfig:
        kind = KINDS[self.kind]
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_head=self.d_head,
            d_ff=self.d_ff or -(-8 * self.d_model // (3 * 64)) * 64,
            causal=True,
            windows=self.windows,
            pattern=self.pattern,
            norm="rms",
            norm_eps=self.norm_eps,
            norm_first=True,
            final_norm=True,
            activation=self.activation,
            gated=True,
            bias=self.ff_bias,
            qkv_bias=self.qkv_bias,
            out_bias=self.qkv_bias and kind.out_bias,
            qk_norm=kind.qk_norm,
            relative=self.rotary,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
        )


def build(config: LlamaConfig) -> LanguageModel:
    known = config.pad_id is not None and 0 <= config.pad_id < config.vocab_size
    embed = EmbedConfig(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        positions="none",
        still=config.pad_id if known else None,
        dropout=config.dropout,
    )
    net = LanguageModel(embed, config.stack(), DecoderEnds.of(config))
    begin(net, config.n_layers)
    return net


def from_hf(keys: Keys) -> LlamaConfig:
    name = keys.take("model_type", "llama")
    kind = KINDS[name]
    _silent(keys)
    layers, heads = keys.take("num_hidden_layers", 32), keys.take("num_attention_heads", 32)
    d_model = keys.take("hidden_size", 4096)
    most = keys.take("max_position_embeddings", kind.max_positions)
    window, window_layers = _windows(keys, kind, layers)
    eos, more = eos_ids(keys, kind.eos_id)
    vocab_size, pad = keys.take("vocab_size", kind.vocab_size), keys.token("pad_token_id")
    classes = {f"{kind.name}ForCausalLM": "lm", f"{kind.name}Model": "none"}
    return LlamaConfig(
        kind=name,
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=whole(keys, "num_key_value_heads", kind.n_kv_heads) or heads,
        d_head=whole(keys, "head_dim", kind.d_head) or d_model // max(heads, 1),
        d_ff=keys.take("intermediate_size", kind.d_ff),
        max_positions=most,
        rotary=_rotary(keys, most),
        window=window,
        window_layers=window_layers,
        activation=keys.act("hidden_act", "silu"),
        norm_eps=keys.take("rms_norm_eps", 1e-6),
        bias=_bias(keys, "attention_bias", kind.biases),
        ff_bias=_bias(keys, "mlp_bias", kind.ff_biases),
        tie=keys.take("tie_word_embeddings", False),
        head=keys.architecture(classes, f"{kind.name}ForCausalLM"),
        attn_dropout=keys.take("attention_dropout", 0.0),
        bos_id=keys.token("bos_token_id", kind.bos_id),
        eos_id=eos,
        more_eos=more,
        # QUIRK (torch): a padding id of -1, as early files have it, is the last row
        pad_id=pad + vocab_size if pad is not None and pad < 0 else pad,
    )


def _silent(keys: Keys) -> None:
    keys.expect("is_encoder_decoder", False)
    keys.expect("add_cross_attention", False)
    keys.expect("partial_rotary_factor", 1.0)
    keys.expect("rope_interleaved", False)
    keys.expect("use_mrope", False)
    keys.expect("pruned_heads", {})
    keys.ignore("pretraining_tp")  # the same products in slices
    keys.ignore("is_decoder", "max_sequence_length", "is_llama_config")  # notes of publishers
    keys.ignore("transformers.js_config", "_flash_attn_2_enabled")  # for other programs


def _bias(keys: Keys, name: str, known: tuple[bool, ...]) -> bool:
    if len(known) == 2:
        given: bool = keys.take(name, False)
        return given
    if known[0]:
        keys.ignore(name)  # Qwen2 has its biases whatever this says
    else:
        keys.expect(name, False)
    return known[0]


def _windows(keys: Keys, kind: Kind, layers: int) -> tuple[int | None, tuple[int, ...] | None]:
    """(window, the layers that have it; None: all)."""
    if kind.windows == "none":
        keys.expect("sliding_window")
        return None, None
    window = whole(keys, "sliding_window", 4096)
    if kind.windows == "all":
        return window, None
    window = window if keys.take("use_sliding_window", False) else None
    first = keys.take("max_window_layers", 28)
    types = keys.take("layer_types", None)
    if types is None:
        types = ["full_attention" if i < first else "sliding_attention" for i in range(layers)]
        types = types if window is not None else ["full_attention"] * layers
    _check_types(types, layers, window, keys.place)
    chosen = tuple(i for i, t in enumerate(types) if t == "sliding_attention")
    return (window, chosen) if chosen else (None, None)


def _check_types(types: Any, layers: int, window: int | None, place: object) -> None:
    known = {"full_attention", "sliding_attention"}
    if not isinstance(types, list) or len(types) != layers or not known.issuperset(map(str, types)):
        raise ConfigError(
            f"layer_types = {str(types)[:80]} for {layers} layers is not computed here",
            place=place,
            fix=f"one of {', '.join(sorted(known))} for each layer",
        )
    if window is None and "sliding_attention" in types:
        raise ConfigError(
            "layer_types has sliding_attention, but there is no window",
            place=place,
            fix="give use_sliding_window = true and sliding_window",
            code="QKV-013",
        )


def _rotary(keys: Keys, most: int) -> Rotary:
    """rope_parameters of transformers 5; before, rope_scaling beside a rope_theta that stood alone."""
    both = [keys.take(name, None) for name in ("rope_scaling", "rope_parameters")]
    given = both[0] or both[1] or {}
    theta = keys.take("rope_theta", 10_000.0)
    apart = keys.take("original_max_position_embeddings", 0)
    if not isinstance(given, dict):
        raise ConfigError(
            f"rope_parameters must be a table (got {str(given)[:60]})",
            place=keys.place,
            fix="correct config.json",
            code="QKV-011",
        )
    at = Keys(given, f"{keys.place} rope_parameters".strip())
    older = at.take("type", "default")
    words = {"default": "none", "linear": "linear", "llama3": "llama3"}
    scaling: Any = at.one_of("rope_type", words, older)
    at.expect("partial_rotary_factor", 1.0)
    base, factor = at.take("rope_theta", theta), at.take("factor", 0.0)
    low, high = at.take("low_freq_factor", 1.0), at.take("high_freq_factor", 4.0)
    original = apart or at.take("original_max_position_embeddings", most)
    at.ignore("original_max_position_embeddings")
    at.done()
    if scaling == "none":
        return Rotary(base=base)
    if scaling == "linear":
        return Rotary(base=base, scaling="linear", factor=factor)
    return Rotary(base=base, scaling=scaling, factor=factor, low=low, high=high, original=original)


def to_hf(config: LlamaConfig) -> dict[str, Any]:
    kind, rotary = KINDS[config.kind], config.rotary
    made = {
        "model_type": config.kind,
        "architectures": [kind.name + ("ForCausalLM" if config.head == "lm" else "Model")],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads or config.n_heads,
        "head_dim": config.stack().attention(None).head_width,
        "intermediate_size": config.stack().d_ff,
        "max_position_embeddings": config.max_positions,
        "rope_parameters": _their_rotary(rotary),
        "hidden_act": THEIR_ACTS[config.activation],
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie,
        "attention_dropout": config.attn_dropout,
        "bos_token_id": config.bos_id,
        "eos_token_id": their_eos(config),
        "pad_token_id": config.pad_id,
    }
    if len(kind.biases) == 2:
        made["attention_bias"] = config.qkv_bias
    if len(kind.ff_biases) == 2:
        made["mlp_bias"] = config.ff_bias
    if kind.windows != "none":
        made["sliding_window"] = config.window
    if kind.windows == "some":
        radii = config.windows or (None,) * config.n_layers
        made["use_sliding_window"] = config.window is not None
        made["layer_types"] = [
            "full_attention" if radius is None else "sliding_attention" for radius in radii
        ]
    return made


def _their_rotary(rotary: Rotary) -> dict[str, Any]:
    made: dict[str, Any] = {"rope_type": "default", "rope_theta": rotary.base}
    if rotary.scaling != "none":
        made |= {"rope_type": rotary.scaling, "factor": rotary.factor}
    if rotary.scaling == "llama3":
        made |= {
            "low_freq_factor": rotary.low,
            "high_freq_factor": rotary.high,
            "original_max_position_embeddings": rotary.original,
        }
    return made


def table(config: LlamaConfig) -> Table:
    tied = config.tie or config.head == "none"
    rows = {
        "model.embed_tokens.weight": "embed.token.weight",
        "model.norm.{p}": "decoder.norm.{p}",
        "model.layers.{i}.input_layernorm.{p}": "decoder.blocks.{i}.attn_norm.{p}",
        "model.layers.{i}.post_attention_layernorm.{p}": "decoder.blocks.{i}.ff_norm.{p}",
        "model.layers.{i}.self_attn.{q_proj,k_proj,v_proj,o_proj}.{p}": "decoder.blocks.{i}.attn.{q,k,v,o}.{p}",
        "model.layers.{i}.mlp.{gate_proj,up_proj,down_proj}.{p}": "decoder.blocks.{i}.ff.{gate,up,down}.{p}",
    }
    if KINDS[config.kind].qk_norm:
        rows["model.layers.{i}.self_attn.{q_norm,k_norm}.{p}"] = "decoder.blocks.{i}.attn.{q_norm,k_norm}.{p}"  # fmt: skip
    if not tied:
        rows["lm_head.weight"] = "head.weight"
    return Table(
        rows,
        skip={"model.layers.*.rotary_emb.inv_freq": "the speeds, stored by old versions"},
        tied={"lm_head.weight": "model.embed_tokens.weight"} if tied else None,
    )
