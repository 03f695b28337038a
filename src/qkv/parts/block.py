"""One block and a stack of them: the whole family's encoder and decoder, by configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..shapes import Bias, Heads, Keep, States
from .attention import Attention, AttentionConfig
from .cache import CHUNK, KV, filled
from .dropout import Dropout
from .exponents import Sums
from .favor import Features
from .norms import Norm, make_norm
from .patterns import Allowed, Causal, Full, Pattern, Window, parse
from .positions import Alibi, BucketBias, Buckets, Rotary, Turn, rotate
from .product import ROWS, Linear

Activation = Literal[
    "relu", "relu2", "gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "tanh", "sigmoid"
]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),  # So et al. 2021, section 4
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),  # Hendrycks & Gimpel 2016, section 2
    "silu": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


GELUS = ACTIVATIONS["gelu"], ACTIVATIONS["gelu_tanh"]  # torch shares these out in its own way
VECTOR = 64  # numbers that torch's kernels take at once, at most
SHARE = 32768  # numbers from which it gives each thread a share


def elementwise(act: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """act(x), where the bits of a number do not depend on those beside it (law 2).

    torch computes an exponential of whole vectors one way, and of what is left at the end of a thread's share another.  So
    shares are filled up to whole vectors; where widths are multiples of 64 they are."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or act is F.relu:
        return act(x)
    n, threads = x.numel(), torch.get_num_threads()
    shares = max(1, min(threads, -(-n // SHARE)))
    if act in GELUS:
        shares = threads if n > SHARE // 2 else 1
    extra = -n % (VECTOR * shares)
    return act(F.pad(x.reshape(-1), (0, extra)))[:n].view(x.shape) if extra else act(x)


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
    windows: tuple[
        int | None, ...
    ] = ()  # how far away each layer looks at most (Mistral's kin, Longformer)
    pattern: str | None = None  # who may look at whom, within these: "window(256) | global(1)"
    norm: Norm = "layer"
    norm_eps: float = 1e-5
    norm_first: bool = (
        False  # pre-norm (Xiong et al. 2020); otherwise post-norm (Vaswani et al. 2017)
    )
    final_norm: bool = False
    activation: Activation = "relu"
    gated: bool = False  # act(W x) * (U x), Shazeer 2020
    bias: bool = True
    qkv_bias: bool | None = None  # None: as bias
    out_bias: bool | None = None  # of attention's last product; None: as qkv_bias
    qk_norm: bool = False  # an RMS norm on each head's q and k
    relative: Rotary | Alibi | Buckets | None = None
    scale: float | None = None  # None: D ** -0.5.  T5 and its kin: 1.0
    dropout: float = 0.0  # on what each sublayer adds
    attn_dropout: float = 0.0  # on attention weights
    features: Features | None = None  # random features in place of the softmax
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
        if self.windows and len(self.windows) != self.n_layers:
            raise ConfigError(
                f"{len(self.windows)} windows for {self.n_layers} layers",
                fix="give one window a layer",
                code="QKV-013",
            )
        if isinstance(self.relative, Rotary) and self.attention(None).head_width % 2:
            raise ConfigError(
                f"rotary positions turn pairs, heads are {self.attention(None).head_width} wide",
                fix="give d_head, an even number",
                code="QKV-013",
            )
        self.attention(None)
        if self.pattern is not None:
            parse(self.pattern)
        biased = isinstance(self.relative, Alibi | Buckets)
        if self.features is not None and (biased or set(self.patterns) - {Full(), Causal()}):
            raise ConfigError(
                "features sum over all keys: no window, no pattern, and no bias on pairs",
                fix="remove them, or features; learned, sinusoid and rotary positions are possible",
                code="QKV-013",
            )

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """One a layer."""
        base: Pattern = Causal() if self.causal else Full()
        if self.pattern is not None:
            base = base & parse(self.pattern).onward() if self.causal else parse(self.pattern)
        windows = self.windows or (None,) * self.n_layers
        return tuple(base if w is None else base & Window(w) for w in windows)

    def attention(self, d_memory: int | None) -> AttentionConfig:
        return AttentionConfig(
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_head=self.d_head,
            d_memory=d_memory,
            bias=self.bias if self.qkv_bias is None else self.qkv_bias,
            out_bias=self.out_bias,
            qk_norm=self.norm_eps if self.qk_norm else None,
            scale=self.scale,
            dropout=self.attn_dropout,
            features=self.features,
        )


class FeedForward(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x): (B, T, C) -> (B, T, C)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        C, n = config.d_model, config.d_ff
        self.up = Linear(C, n, bias=config.bias)
        self.gate = Linear(C, n, bias=config.bias) if config.gated else None
        self.down = Linear(n, C, bias=config.bias)
        self.act = ACTIVATIONS[config.activation]
        self.drop = Dropout(config.ff_dropout)

    def forward(self, x: States) -> States:
        if self.gate is None:
            h = elementwise(self.act, self.up(x))
        else:
            h = elementwise(self.act, self.gate(x)) * self.up(x)
        y: Tensor = self.down(self.drop(h))
        return y


@dataclass(frozen=True)
class Sight:
    """What the tokens of one pass may look at: themselves, and a memory."""

    own: Allowed
    bias: Bias | None = None
    turn: Turn | None = None  # where the family turns q and k
    memory: Allowed | None = None
    place: States | None = None  # (1 or B, T, C) added to what q and k are made of, not to values


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Past:
    """A cache, and where this pass writes: from `at` on, or each row at a place of its own."""

    kv: KV | Sums
    at: int
    rows_at: Tensor | None = None

    def real(self, keep: Keep, T: int) -> Keep:
        """Which of the T tokens of this pass are no padding (R, T); keep (R, capacity) is of the whole cache."""
        if self.rows_at is None:
            return keep[:, self.at : self.at + T]
        return keep.gather(1, self.rows_at[:, None])


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
        self, x: States, sight: Sight, *, past: Past | None = None, cross: Pair | None = None
    ) -> tuple[States, KV | Sums | None]:
        """x (B, T, C) -> x (B, T, C), and the cache that now holds it, where `past` is given."""
        h = self.enter(x, self.attn_norm)
        q, k, v = self.attn.of_one(h, sight.place)
        if sight.turn is not None:
            q, k = rotate(q, sight.turn), rotate(k, sight.turn)
        y, kv = self.look(q, k, v, sight, past)
        x = self.leave(x, y, self.attn_norm)
        if cross is not None and sight.memory is not None:
            h = self.enter(x, self.cross_norm)
            y = self.cross(self.cross.queries(placed(h, sight)), *cross, sight.memory)
            x = self.leave(x, y, self.cross_norm)
        h = self.enter(x, self.ff_norm)
        return self.leave(x, self.ff(h), self.ff_norm), kv

    def look(
        self, q: Heads, k: Heads, v: Heads, sight: Sight, past: Past | None
    ) -> tuple[States, KV | Sums | None]:
        """Attention of the tokens to themselves and to `past`, which comes back with their keys and values."""
        if past is None:
            return self.attn(q, k, v, sight.own, bias=sight.bias), None
        if isinstance(past.kv, Sums):
            return self.attn.advance(q, k, v, past.real(sight.own.keep, q.shape[2]), past.kv)
        kv = past.kv.put(k, v, past.at, past.rows_at)
        return self.attn(q, kv.k, kv.v, sight.own, bias=sight.bias), kv


def placed(h: States, sight: Sight) -> States:
    """The states with their positions, where these are added in each layer (Carion et al. 2020, appendix A.3)."""
    return h if sight.place is None else h + sight.place


@dataclass(frozen=True)
class StackState:
    """The caches of a decoder: its own past, and a memory's keys and values, made once.

    `owner` says which source a row decodes, so that reordering beams of one source leaves the memory alone.
    `lengths` (R) where rows have seen different numbers of tokens (prompts); `length` is then the largest."""

    own: tuple[KV | Sums, ...]
    cross: tuple[Pair, ...]
    memory: Allowed | None  # whom a token sees there
    owner: Tensor  # (R)
    length: int
    lengths: Tensor | None = None
    marked: Keep | None = None  # (R, …): the prompts' global tokens

    def reorder(self, rows: Tensor) -> "StackState":
        owner = self.owner.index_select(0, rows)
        lengths = None if self.lengths is None else self.lengths.index_select(0, rows)
        own = tuple(kv.reorder(rows) for kv in self.own)
        marked = None if self.marked is None else self.marked.index_select(0, rows)
        moved = replace(self, own=own, owner=owner, lengths=lengths, marked=marked)
        if self.memory is None or torch.equal(owner, self.owner):
            return moved
        cross = tuple((k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.cross)
        keep = self.memory.keep.index_select(0, rows)
        return replace(moved, cross=cross, memory=replace(self.memory, keep=keep))


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
        self.config, self.patterns = config, config.patterns
        relative = config.relative
        if isinstance(relative, Buckets):
            self.relative = BucketBias(relative, config.n_heads, causal=config.causal)

    def sights(
        self,
        own: Allowed,
        positions: Tensor,
        memory: Allowed | None,
        like: Tensor,
        place: States | None = None,
    ) -> list[Sight]:
        """What each layer's tokens may look at; layers with one pattern share one."""
        relative, n_keys, bias, turn = self.config.relative, own.keep.shape[1], None, None
        if isinstance(relative, Alibi):
            bias = relative.bias(self.config.n_heads, own.positions, n_keys)
        elif isinstance(relative, Buckets):
            bias = self.relative(own.positions, n_keys)
        elif isinstance(relative, Rotary):
            turn = relative.turn(positions, self.config.attention(None).head_width, like.dtype)
        made = {
            p: Sight(replace(own, pattern=p), bias, turn, memory, place) for p in set(self.patterns)
        }
        return [made[p] for p in self.patterns]

    def forward(
        self,
        x: States,
        keep: Keep,
        *,
        memory: States | None = None,
        memory_keep: Keep | None = None,
        positions: Tensor | None = None,
        group: Tensor | None = None,
        place: States | None = None,
        marked: Keep | None = None,
    ) -> States:
        """x (B, T, C), keep (B, T); memory (B, S, C) and its keep where the stack has cross attention.

        positions (B, T) and group (B, T) where several documents share a row; marked (B, T): tokens that see, and are seen
        by, all of their row (of what came before, where the stack is causal); place (B, T, C): positions that every layer
        adds to what its queries and keys are made of."""
        x = x.masked_fill(~keep[..., None], 0.0)  # so that padding holds nothing that could spread
        x = (
            x.to(torch.get_autocast_dtype(x.device.type))
            if torch.is_autocast_enabled(x.device.type)
            else x
        )
        seen = None
        if memory_keep is not None:
            seen = Allowed.of(Full(), memory_keep, x.shape[1])
        own = Allowed.of(Full(), keep, group=group, marked=marked)
        at = own.positions if positions is None else positions
        sights = self.sights(own, at, seen, x, place)
        for block, sight in zip(self.each, sights, strict=True):
            cross = None if memory is None else block.cross.keys(memory)
            x, _ = block(x, sight, cross=cross)
        y: Tensor = self.norm(x)
        return y

    @property
    def each(self) -> Sequence[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    @property
    def step_rows(self) -> int:
        """The fewest rows of a step that keep their bits beside others (law 2): 16 where features are products of heads."""
        return 1 if self.config.features is None else ROWS

    def start(
        self, rows: int, like: Tensor, memory: States | None, memory_keep: Keep | None
    ) -> StackState:
        """The state before the first token; `like` gives device and dtype."""
        return StackState(
            own=tuple(self.unwritten(rows, like) for _ in self.each),
            cross=() if memory is None else tuple(b.cross.keys(memory) for b in self.each),
            memory=None if memory_keep is None else Allowed.of(Full(), memory_keep, 1),
            owner=torch.arange(rows, device=like.device),
            length=0,
        )

    def unwritten(self, rows: int, like: Tensor) -> KV | Sums:
        """The cache of a layer that has seen nothing."""
        config, features = self.config.attention(None), self.config.features
        if features is None:
            return KV.empty(like, rows, config.kv_heads, config.head_width)
        m = features.number(config.head_width)
        return Sums.empty(like, rows, config.n_heads, m=m, d_head=config.head_width)

    def prompt(
        self, x: States, keep: Keep, state: StackState, marked: Keep | None = None
    ) -> tuple[States, StackState]:
        """The first tokens of every row in one pass: x (R, T, C), right-padded, on a state that has seen none."""
        T, lengths = x.shape[1], keep.sum(1)
        x, here = x.masked_fill(~keep[..., None], 0.0), torch.arange(T, device=x.device)
        extra = max(CHUNK, -(-T // CHUNK) * CHUNK) - T
        room = F.pad(keep, (0, extra))
        marks = None if marked is None else F.pad(marked & keep, (0, extra))
        seen = Allowed(Full(), room, here, marked=marks)
        y, own = self.advance(x, seen, state, Past(state.own[0], 0))
        longest = int(lengths.max())
        even = bool((lengths == longest).all())
        seen_by = None if even else lengths
        return y, replace(state, own=own, length=longest, lengths=seen_by, marked=marks)

    def step(self, x: States, state: StackState) -> tuple[States, StackState]:
        """One token per row: x (R, 1, C) -> its output (R, 1, C) and the state that has seen it."""
        at, lengths = state.length, state.lengths
        more = None if lengths is None else lengths + 1
        here = torch.full((1,), at, device=x.device) if lengths is None else lengths[:, None]
        keep, marks = filled(at + 1, x.shape[0], more, x.device), state.marked
        if marks is not None:
            marks = F.pad(marks, (0, keep.shape[1] - marks.shape[1]))
        own = Allowed(Full(), keep, here, marked=marks)
        y, kept = self.advance(x, own, state, Past(state.own[0], at, lengths))
        return y, replace(state, own=kept, length=at + 1, lengths=more)

    def advance(
        self, x: States, own: Allowed, state: StackState, past: Past
    ) -> tuple[States, tuple[KV | Sums, ...]]:
        """x (R, T, C) through all blocks, each writing its own cache where `past` says."""
        kept = []
        sights = self.sights(own, own.positions, state.memory, x)
        for i, (block, sight) in enumerate(zip(self.each, sights, strict=True)):
            cross = state.cross[i] if state.cross else None
            x, kv = block(x, sight, past=replace(past, kv=state.own[i]), cross=cross)
            if kv is not None:
                kept.append(kv)
        y: Tensor = self.norm(x)
        return y, tuple(kept)
