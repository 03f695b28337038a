"""One block and a stack of them: the whole family's encoder and decoder, by configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..shapes import Bias, Keep, States
from .attention import Attention, AttentionConfig
from .cache import KV, filled
from .dropout import Dropout
from .patterns import Allowed, Causal, Full, Pattern
from .positions import alibi, rotate

Norm = Literal["layer", "rms", "batch"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    n_kv_heads: int | None = None
    d_head: int | None = None
    d_memory: int | None = None  # width of an encoder to look back at; None: no cross attention
    causal: bool = False
    window: int | None = None  # look at most this far away
    norm: Norm = "layer"
    norm_eps: float = 1e-5
    norm_first: bool = (
        False  # pre-norm (Xiong et al. 2020); otherwise post-norm (Vaswani et al. 2017)
    )
    final_norm: bool = False
    activation: Activation = "relu"
    gated: bool = False  # act(W x) * (U x), Shazeer 2020
    bias: bool = True
    relative: Literal["none", "rotary", "alibi"] = "none"
    scale: float | None = None
    dropout: float = 0.0  # on what each sublayer adds
    attn_dropout: float = 0.0  # on attention weights
    ff_dropout: float = 0.0  # inside the feed-forward network

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "d_ff"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1 (got {getattr(self, name)})", fix=f"try {name}=4"
                )
        for name in ("dropout", "attn_dropout", "ff_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be in [0, 1) (got {getattr(self, name)})", fix=f"try {name}=0.1"
                )
        self.attention(None)

    @property
    def pattern(self) -> Pattern:
        from .patterns import Window

        base: Pattern = Causal() if self.causal else Full()
        return base if self.window is None else base & Window(self.window)

    def attention(self, d_memory: int | None) -> AttentionConfig:
        return AttentionConfig(
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_head=self.d_head,
            d_memory=d_memory,
            bias=self.bias,
            scale=self.scale,
            dropout=self.attn_dropout,
        )


class BatchNorm(nn.Module):
    """Normalises each channel over the batch (Ioffe & Szegedy 2015): for comparison, padding is counted."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model, eps=eps)

    def forward(self, x: States) -> States:
        y: Tensor = self.norm(x.flatten(0, 1)).view_as(x)
        return y


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · g, Zhang & Sennrich 2019, eq. 4; g follows x into half precision."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d_model)), eps

    def forward(self, x: States) -> States:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def make_norm(kind: Norm, d_model: int, eps: float, bias: bool) -> nn.Module:
    if kind == "rms":
        return RMSNorm(d_model, eps)
    return BatchNorm(d_model, eps) if kind == "batch" else nn.LayerNorm(d_model, eps=eps, bias=bias)


class FeedForward(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x): (B, T, C) -> (B, T, C)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        C, n = config.d_model, config.d_ff
        self.up = nn.Linear(C, n, bias=config.bias)
        self.gate = nn.Linear(C, n, bias=config.bias) if config.gated else None
        self.down = nn.Linear(n, C, bias=config.bias)
        self.act = ACTIVATIONS[config.activation]
        self.drop = Dropout(config.ff_dropout)

    def forward(self, x: States) -> States:
        h = self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)
        y: Tensor = self.down(self.drop(h))
        return y


@dataclass(frozen=True)
class Sight:
    """What the tokens of one pass may look at: themselves, and a memory."""

    own: Allowed
    bias: Bias | None = None
    turn: Tensor | None = None  # positions for rotary, where the family turns q and k
    memory: Allowed | None = None


class Block(nn.Module):
    """attention -> [cross attention] -> feed-forward, each wrapped by `enter` and `leave`."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return make_norm(config.norm, config.d_model, config.norm_eps, config.bias)

        self.attn_norm, self.attn = norm(), Attention(config.attention(None))
        if config.d_memory is not None:
            self.cross_norm, self.cross = norm(), Attention(config.attention(config.d_memory))
        self.ff_norm, self.ff = norm(), FeedForward(config)
        self.drop, self.norm_first = Dropout(config.dropout), config.norm_first

    def enter(self, x: States, norm: nn.Module) -> States:
        return norm(x) if self.norm_first else x

    def leave(self, x: States, y: States, norm: nn.Module) -> States:
        """Pre-norm: x + y.  Post-norm: norm(x + y)."""
        x = x + self.drop(y)
        return x if self.norm_first else norm(x)

    def forward(
        self, x: States, sight: Sight, *, past: "Past | None" = None, cross: "Pair | None" = None
    ) -> tuple[States, KV | None]:
        """x (B, T, C) -> x (B, T, C), and the cache that now holds it, where `past` is given."""
        h = self.enter(x, self.attn_norm)
        q, (k, v) = self.attn.queries(h), self.attn.keys(h)
        if sight.turn is not None:
            q, k = rotate(q, sight.turn), rotate(k, sight.turn)
        kv = None if past is None else past.kv.put(k, v, past.at)
        k, v = (k, v) if kv is None else (kv.k, kv.v)
        x = self.leave(x, self.attn(q, k, v, sight.own, bias=sight.bias), self.attn_norm)
        if cross is not None and sight.memory is not None:
            h = self.enter(x, self.cross_norm)
            y = self.cross(self.cross.queries(h), *cross, sight.memory)
            x = self.leave(x, y, self.cross_norm)
        h = self.enter(x, self.ff_norm)
        return self.leave(x, self.ff(h), self.ff_norm), kv


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Past:
    kv: KV
    at: int


@dataclass(frozen=True)
class StackState:
    """The caches of a decoder: its own past, and a memory's keys and values, made once.

    `owner` says which source a row decodes, so that reordering beams of one source leaves the memory alone."""

    own: tuple[KV, ...]
    cross: tuple[Pair, ...]
    memory_keep: Keep | None
    owner: Tensor  # (R)
    length: int

    def reorder(self, rows: Tensor) -> "StackState":
        owner = self.owner.index_select(0, rows)
        moved = replace(self, own=tuple(kv.reorder(rows) for kv in self.own), owner=owner)
        if self.memory_keep is None or torch.equal(owner, self.owner):
            return moved
        cross = tuple((k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.cross)
        return replace(moved, cross=cross, memory_keep=self.memory_keep.index_select(0, rows))


class Stack(nn.Module):
    """n blocks, and a last norm where the family has one."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = (
            make_norm(config.norm, config.d_model, config.norm_eps, config.bias)
            if config.final_norm
            else nn.Identity()
        )
        self.config, self.pattern = config, config.pattern

    def sight(self, own: Allowed, memory: Allowed | None) -> Sight:
        config = self.config
        bias, n_keys = None, own.keep.shape[1]
        if config.relative == "alibi":
            bias = alibi(config.n_heads, own.positions, n_keys)
        turn = own.positions if config.relative == "rotary" else None
        return Sight(own, bias, turn, memory)

    def forward(
        self,
        x: States,
        keep: Keep,
        *,
        memory: States | None = None,
        memory_keep: Keep | None = None,
    ) -> States:
        """x (B, T, C), keep (B, T); memory (B, S, C) and its keep where the stack has cross attention."""
        x = x.masked_fill(~keep[..., None], 0.0)  # so that padding holds nothing that could spread
        x = (
            x.to(torch.get_autocast_dtype(x.device.type))
            if torch.is_autocast_enabled(x.device.type)
            else x
        )
        seen = None
        if memory_keep is not None:
            seen = Allowed.of(Full(), memory_keep, x.shape[1])
        sight = self.sight(Allowed.of(self.pattern, keep), seen)
        blocks: Sequence[Block] = list(self.blocks)  # type: ignore[arg-type]
        for block in blocks:
            cross = None if memory is None else block.cross.keys(memory)
            x, _ = block(x, sight, cross=cross)
        y: Tensor = self.norm(x)
        return y

    def start(
        self, rows: int, like: Tensor, memory: States | None, memory_keep: Keep | None
    ) -> StackState:
        """The state before the first token; `like` gives device and dtype."""
        D, H = self.config.attention(None).head_width, self.config.attention(None).kv_heads
        blocks: Sequence[Block] = list(self.blocks)  # type: ignore[arg-type]
        return StackState(
            own=tuple(KV.empty(like, rows, H, D) for _ in blocks),
            cross=() if memory is None else tuple(b.cross.keys(memory) for b in blocks),
            memory_keep=memory_keep,
            owner=torch.arange(rows, device=like.device),
            length=0,
        )

    def step(self, x: States, state: StackState) -> tuple[States, StackState]:
        """One token per row: x (R, 1, C) -> its output (R, 1, C) and the state that has seen it."""
        rows, at = x.shape[0], state.length
        here = torch.full((1,), at, device=x.device)
        own = Allowed(self.pattern, filled(at + 1, rows, x.device), here)
        seen = None
        if state.memory_keep is not None:
            seen = Allowed(Full(), state.memory_keep, here)
        sight, kept = self.sight(own, seen), []
        for i, block in enumerate(self.blocks):
            cross = state.cross[i] if state.cross else None
            x, kv = block(x, sight, past=Past(state.own[i], at), cross=cross)
            kept.append(kv)
        y: Tensor = self.norm(x)
        return y, replace(state, own=tuple(kept), length=at + 1)
