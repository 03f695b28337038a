"""Attention: score -> restrict -> normalise -> sum (Bahdanau et al. 2015; Vaswani et al. 2017, section 3.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UsageError
from ..shapes import Bias, Heads, Keep, Maps, Mask, States
from . import kernels
from .dropout import Dropout
from .exponents import Sums
from .favor import Favor, Features
from .norms import RMSNorm
from .patterns import Allowed
from .product import Linear, Step
from .scores import Additive, General, Score, unit

Probe = Callable[[Maps], None]


def attend(
    q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None, scale: float
) -> Heads:
    """softmax(scale · q kᵀ + bias) v, over the pairs that are allowed.

    q (B, H, T, D); k, v (B, H, S, D), or fewer heads that divide H (grouped-query attention, Ainslie et al. 2023)
    -> (B, H, T, D).  A row that may look at nothing gives zeros."""
    k, v = spread(k, q.shape[1]), spread(v, q.shape[1])
    return kernels.fused(q, k, v, allowed, bias=bias, scale=scale)


def weigh(q: Heads, k: Heads, allowed: Allowed, *, bias: Bias | None = None, scale: float) -> Maps:
    """The weights `attend` sums with: (B, H, T, S), rows sum to 1, or to 0 where nothing may be seen."""
    k = spread(k, q.shape[1])
    return kernels.softmax(kernels.scores(q, k, bias=bias, scale=scale), allowed.dense())


def spread(x: Heads, n_heads: int) -> Heads:
    """Share each of few key heads among several query heads: (B, Hkv, S, D) -> (B, H, S, D)."""
    return x if x.shape[1] == n_heads else x.repeat_interleave(n_heads // x.shape[1], dim=1)


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    d_model: int
    n_heads: int
    n_kv_heads: int | None = None  # None: n_heads.  Fewer: grouped-query attention
    d_head: int | None = None  # None: d_model / n_heads
    d_memory: int | None = None  # width of what is looked at; None: d_model
    bias: bool = True
    out_bias: bool | None = None  # of the last product; None: as bias
    qk_norm: float | None = None  # ε of an RMS norm on each head's q and k (Henry et al. 2020)
    score: Score = "scaled"
    scale: float | None = None  # None: D ** -0.5.  T5 and its kin: 1.0
    dropout: float = 0.0
    features: Features | None = (
        None  # random features in place of the softmax: cost linear in length
    )

    def __post_init__(self) -> None:
        if self.features is not None and (self.dropout or self.score != "scaled"):
            raise ConfigError(
                f"features with dropout {self.dropout} on weights and score {self.score!r}: there are no weights, and the kernel is"
                " that of the scaled product",
                fix='attention dropout 0, score = "scaled"',
                code="QKV-013",
            )
        if self.d_head is None and self.d_model % self.n_heads:
            raise ConfigError(
                f"d_model {self.d_model} does not divide into {self.n_heads} heads",
                fix="change one or give d_head",
                code="QKV-013",
            )
        for name in ("n_kv_heads", "d_head"):
            if (n := getattr(self, name)) is not None and n < 1:
                raise ConfigError(f"{name} must be at least 1 (got {n})", fix="leave it out")
        if self.n_heads % self.kv_heads:
            raise ConfigError(
                f"{self.n_heads} heads do not share {self.kv_heads} key heads evenly",
                fix="n_kv_heads must divide n_heads",
                code="QKV-013",
            )

    @property
    def head_width(self) -> int:
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads


class Attention(nn.Module):
    """Multi-head attention over a memory, which may be the sequence itself.

    `keys` and `forward` are apart because a memory's keys and values are made once and used at every step.
    `probe`, when set by `qkv.record`, is handed the weights; the answer does not change."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        C, D, H, Hkv = config.d_model, config.head_width, config.n_heads, config.kv_heads
        S = config.d_memory or C
        self.q = Linear(C, H * D, bias=config.bias)
        self.k = Linear(S, Hkv * D, bias=config.bias)
        self.v = Linear(S, Hkv * D, bias=config.bias)
        self.o = Linear(H * D, C, bias=config.bias if config.out_bias is None else config.out_bias)
        self.n_heads, self.n_kv_heads, self.d_head, self.kind = H, Hkv, D, config.score
        plain = 1.0 if config.score in ("dot", "cosine") else D**-0.5
        self.scale = plain if config.scale is None else config.scale
        made = {"general": General, "additive": Additive}.get(config.score)
        self.score = None if made is None else made(H, D)
        if config.qk_norm is not None:
            self.q_norm, self.k_norm = RMSNorm(D, config.qk_norm), RMSNorm(D, config.qk_norm)
        self.normed = config.qk_norm is not None
        self.sharpness = nn.Parameter(torch.tensor(D**0.5)) if config.score == "cosine" else None
        self.dropout = Dropout(config.dropout)
        self.favor = None if config.features is None else Favor(config.features, D)
        self.probe: Probe | None = None
        self.own = Step()

    def of_one(self, x: States, place: States | None = None) -> tuple[Heads, Heads, Heads]:
        """q, k and v of a sequence that looks at itself: in a step of decoding by one product."""
        if not self.own.wanted(x) or place is not None:
            q = self.queries(x if place is None else x + place)
            return q, *self.keys(x, place)
        widths = [part.out_features for part in (self.q, self.k, self.v)]
        q, k, v = torch.split(self.own.product(x, self.q, self.k, self.v), widths, -1)
        return self.as_queries(q), self.as_keys(k), self.as_values(v)

    def keys(self, memory: States, place: States | None = None) -> tuple[Heads, Heads]:
        """(B, S, C) -> k and v, each (B, Hkv, S, D).  `place` is added to what the keys are made of, not the values."""
        k = self.k(memory if place is None else memory + place)
        return self.as_keys(k), self.as_values(self.v(memory))

    def as_keys(self, k: States) -> Heads:
        k = k.view(*k.shape[:-1], self.n_kv_heads, self.d_head)
        k = (self.k_norm(k) if self.normed else k).transpose(1, 2)
        return unit(k) if self.kind == "cosine" else k

    def as_values(self, v: States) -> Heads:
        return v.view(*v.shape[:-1], self.n_kv_heads, self.d_head).transpose(1, 2)

    def queries(self, x: States) -> Heads:
        """(B, T, C) -> q (B, H, T, D), changed so that the score is a dot product."""
        return self.as_queries(self.q(x))

    def as_queries(self, q: States) -> Heads:
        q = q.view(*q.shape[:-1], self.n_heads, self.d_head)
        q = (self.q_norm(q) if self.normed else q).transpose(1, 2)
        if self.sharpness is not None:
            return unit(q) * self.sharpness
        changed: Tensor = self.score(q) if isinstance(self.score, General) else q
        return changed

    def sees(self, allowed: Allowed) -> Mask:
        """(B, 1 or H, T, S) bool: the pairs that this layer looks at."""
        return allowed.dense()

    def weights(self, q: Heads, k: Heads, allowed: Allowed, bias: Bias | None) -> Maps:
        """(B, H, T, S): the definition of what this layer looks at; with features the map they imply."""
        if self.favor is not None:
            return self.favor.weights(q, spread(k, self.n_heads), allowed, scale=self.scale)
        if isinstance(self.score, Additive):
            added = self.score(q, spread(k, self.n_heads))
            return kernels.softmax(added if bias is None else added + bias, allowed.dense())
        return weigh(q, k, allowed, bias=bias, scale=self.scale)

    def forward(
        self, q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None
    ) -> States:
        """Queries (B, H, T, D) over keys and values (B, Hkv, S, D) -> (B, T, C)."""
        if self.probe is not None:
            with torch.no_grad():
                self.probe(self.weights(q, k, allowed, bias))
        if self.favor is not None:
            k, v = spread(k, self.n_heads), spread(v, self.n_heads)
            y = self.favor(q, k, v, allowed, scale=self.scale)
        elif self.kind == "additive" or (self.training and self.dropout.p):
            y = self.weighed(q, k, v, allowed, bias)
        else:
            y = attend(q, k, v, allowed, bias=bias, scale=self.scale)
        return self.merged(y, q)

    def weighed(self, q: Heads, k: Heads, v: Heads, allowed: Allowed, bias: Bias | None) -> Heads:
        """The answer where weights are dropped, or are no products: through the weights, but where the pattern is known."""
        p, known = self.dropout.p if self.training else 0.0, None
        if p and self.kind != "additive":
            k, v = spread(k, self.n_heads), spread(v, self.n_heads)
            known = kernels.recognised(q, k, v, allowed, bias=bias, scale=self.scale, p=p)
        if known is not None:
            return known
        weights = self.dropout(self.weights(q, k, allowed, bias))
        return kernels.mix(weights, spread(v, self.n_heads))

    def advance(self, q: Heads, k: Heads, v: Heads, keep: Keep, sums: Sums) -> tuple[States, Sums]:
        """The next T tokens of a sequence whose past is `sums`; of features only.  keep (R, T) -> (R, T, C), the new past."""
        if self.favor is None:
            raise ConfigError("sums of a past need features", fix="features = 256", code="QKV-013")
        if self.probe is not None:
            raise UsageError(
                "a past that is a sum cannot be looked at step by step",
                fix="record one pass over the whole text: model.logits(ids)",
            )
        k, v = spread(k, self.n_heads), spread(v, self.n_heads)
        y, sums = self.favor.advance(q, k, v, keep, sums, scale=self.scale)
        return self.merged(y, q), sums

    def merged(self, y: Heads, q: Heads) -> States:
        """The heads' answers as one, (B, H, T, D) -> (B, T, C), in q's precision."""
        y = y.transpose(1, 2).flatten(-2)
        merged: Tensor = self.o(y.to(q.dtype))  # a CPU sums in float32
        return merged
