"""Attention within windows, where marked tokens see and are seen by all (Beltagy et al. 2020, section 3.1)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..parts import kernels
from ..parts.attention import Attention, AttentionConfig, attend, weigh
from ..parts.dropout import Dropout
from ..parts.patterns import Allowed, Dilated, Full
from ..parts.recurrent import in_sixteens
from ..shapes import Bias, Heads, Keep, Maps, Mask, States

ROWS = 16  # marked tokens of a row are gathered in sixteens, so that no neighbour changes a bit (law 2)


@dataclass(frozen=True)
class Gathered:
    """The marked tokens of a batch: at (B, G) where they are, real (B, G) which of these places hold one, and what they
    may see."""

    at: Tensor
    real: Keep
    allowed: Allowed

    @classmethod
    def of(cls, allowed: Allowed) -> Self | None:
        """None where no real token is marked."""
        if allowed.marked is None:
            return None
        marked = allowed.marked & allowed.keep
        most, S = int(marked.sum(1).amax()) if len(marked) else 0, marked.shape[1]
        if not most:
            return None
        whole = replace(allowed, pattern=Full(), marked=None)
        if allowed.group is not None:  # what a packed text sees is known for all of its tokens only
            return cls(torch.arange(S, device=marked.device).expand_as(marked), marked, whole)
        G = min(-(-most // ROWS) * ROWS, S)
        at = (~marked).long().argsort(dim=1, stable=True)[:, :G]
        return cls(at, marked.gather(1, at), Allowed.of(Full(), allowed.keep, G))

    def take(self, x: States) -> States:
        """(B, T, C) -> (B, G, C)."""
        return x.gather(1, self.at[..., None].expand(-1, -1, x.shape[2]))

    def few(self, x: Heads) -> Heads:
        """(B, H, T, D) -> (B, H, G, D)."""
        return x.gather(2, self.at[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))

    def put(self, rows: Tensor, into: Tensor) -> Tensor:
        """`into` (B, H, T, n) with the marked tokens' rows (B, H, G, n) in place of its own."""
        at = self.at[:, None, :, None].expand_as(rows)
        kept = torch.where(self.real[:, None, :, None], rows.to(into.dtype), into.gather(2, at))
        return into.scatter(2, at, kept)


class LongAttention(Attention):
    """Attention within a window, where marked tokens see all with a q, k and v of their own (Beltagy et al. 2020,
    section 3.1): rows of marked tokens are softmax(scale · q' k'ᵀ) v', the others softmax(scale · q kᵀ) v over the window and
    the marked tokens.

    `queries` gives q and, beside it, the states, (B, H, T, 2 D): of those q', k' and v' are made where something is marked.
    The last `n_dilated` heads have windows with gaps."""

    def __init__(
        self, config: AttentionConfig, radius: int, dilated: Dilated | None, n_dilated: int
    ) -> None:
        super().__init__(config)
        self.radius = radius
        C = config.d_model
        self.q_global, self.k_global = nn.Linear(C, C), nn.Linear(C, C)
        self.v_global = nn.Linear(C, C)
        self.dilated, self.n_dilated = dilated, n_dilated

    def split(self, x: States) -> Heads:
        """(B, T, C) -> (B, H, T, D)."""
        B, T, _ = x.shape
        return x.reshape(B, T, self.n_heads, -1).transpose(1, 2)

    def queries(self, x: States) -> Heads:
        return torch.cat([self.split(self.q(x)), self.split(x)], -1)

    def of_one(self, x: States, place: States | None = None) -> tuple[Heads, Heads, Heads]:
        return self.queries(x if place is None else x + place), *self.keys(x, place)

    def sides(self, allowed: Allowed) -> Iterator[tuple[slice, Allowed]]:
        """Heads, and what they may see."""
        plain = self.n_heads if self.dilated is None else self.n_heads - self.n_dilated
        if plain:
            yield slice(0, plain), allowed
        if plain < self.n_heads and self.dilated is not None:
            yield slice(plain, None), replace(allowed, pattern=self.dilated)

    def sees(self, allowed: Allowed) -> Mask:
        made = []
        for heads, seen in self.sides(allowed):
            n = len(range(*heads.indices(self.n_heads)))
            made.append(seen.dense().expand(-1, n, -1, -1))
        return torch.cat(made, 1)

    def weights(self, q: Heads, k: Heads, allowed: Allowed, bias: Bias | None) -> Maps:
        q, x = q.chunk(2, -1)
        near = self.near_weights(q, k, allowed)
        marked = Gathered.of(allowed)
        if marked is None:
            return near
        own, k, _ = self.globals(x.transpose(1, 2).flatten(2), marked)
        return marked.put(weigh(own, k, marked.allowed, scale=self.scale), near)

    def near_weights(self, q: Heads, k: Heads, allowed: Allowed) -> Maps:
        made = [
            weigh(q[:, heads], k[:, heads], seen, scale=self.scale)
            for heads, seen in self.sides(allowed)
        ]
        return torch.cat(made, 1)

    def globals(self, x: States, marked: Gathered) -> tuple[Heads, Heads, Heads]:
        """q' of the marked tokens (B, H, G, D), k' and v' of all (B, H, S, D)."""
        (q,) = in_sixteens(self.q_global, marked.take(x).flatten(0, 1))
        q = q.view(*marked.at.shape, -1)
        return self.split(q), self.split(self.k_global(x)), self.split(self.v_global(x))

    def near(self, q: Heads, k: Heads, v: Heads, allowed: Allowed) -> Heads:
        """What every token gathers from its window and from the marked ones."""
        p = self.dropout.p if self.training else 0.0
        if p and self.dilated is None and allowed.group is None:
            return dropped(q, k, v, allowed, self.radius, self.dropout, self.scale)
        made = [
            self.some(q[:, heads], k[:, heads], v[:, heads], seen, p)
            for heads, seen in self.sides(allowed)
        ]
        return made[0] if len(made) == 1 else torch.cat(made, 1)

    def some(self, q: Heads, k: Heads, v: Heads, allowed: Allowed, p: float) -> Heads:
        """The same of heads that see alike; p: the share of weights that is dropped."""
        if not p:
            return attend(q, k, v, allowed, scale=self.scale)
        known = kernels.recognised(q, k, v, allowed, scale=self.scale, p=p)
        if known is not None:
            return known
        return kernels.mix(self.dropout(weigh(q, k, allowed, scale=self.scale)), v)

    def forward(
        self, q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None
    ) -> States:
        if self.probe is not None:
            with torch.no_grad():
                self.probe(self.weights(q, k, allowed, bias))
        q, states = q.chunk(2, -1)
        q, x = q.to(k.dtype), states.transpose(1, 2).flatten(2)
        y = self.near(q, k, v, allowed)
        marked = Gathered.of(allowed)
        if marked is not None:
            own, k, v = self.globals(x, marked)
            if self.training and self.dropout.p:
                seen = weigh(own, k, marked.allowed, scale=self.scale)
                rows = kernels.mix(self.dropout(seen), v)
            else:
                rows = attend(own, k, v, marked.allowed, scale=self.scale)
            y = marked.put(rows, y)
        merged: Tensor = self.o(y.transpose(1, 2).flatten(-2).to(k.dtype))
        return merged


def dropped(
    q: Heads, k: Heads, v: Heads, allowed: Allowed, radius: int, dropout: Dropout, scale: float
) -> Heads:
    """dropout(softmax(scale · q kᵀ)) v over a window and the marked tokens, in time and memory linear in the length: blocks
    of c queries beside c + 2 radius keys.  Rows of marked tokens are left to the caller."""
    (B, H, T, D), c = q.shape, max(radius // 2, ROWS)
    n = -(-T // c)
    q = F.pad(q, (0, 0, 0, n * c - T)).view(B, H, n, c, D)
    marked = Gathered.of(allowed)
    real = allowed.keep if marked is None else allowed.keep & ~allowed.marked  # type: ignore[operator]

    def windows(x: Tensor, axis: int) -> Tensor:
        """(…, T, …) -> (…, n, …, c + 2 radius)."""
        ends = [0, 0] * (x.dim() - 1 - axis) + [radius, radius + n * c - T]
        return F.pad(x, ends).unfold(axis, c + 2 * radius, c)

    y, x = torch.arange(c, device=q.device)[:, None], torch.arange(c + 2 * radius, device=q.device)
    band = (x >= y) & (x <= y + 2 * radius)
    may = (band & windows(real, 1)[:, :, None])[:, None]  # (B, 1, n, c, c + 2 radius)
    s = q @ windows(k, 2) * scale
    if marked is None:
        return _summed(dropout(_softmax(s, may)), windows(v, 2), T)
    few_k, few_v = (marked.few(h)[:, :, None] for h in (k, v))  # (B, H, 1, G, D)
    s = torch.cat([s, q @ few_k.transpose(-1, -2) * scale], -1)
    some = marked.real[:, None, None, None].expand(-1, 1, n, c, -1)
    weights = dropout(_softmax(s, torch.cat([may, some], -1)))
    near, far = weights.tensor_split([c + 2 * radius], -1)
    made: Heads = _summed(near, windows(v, 2), T) + (far @ few_v).flatten(2, 3)[:, :, :T]
    return made


def _softmax(s: Tensor, may: Tensor) -> Tensor:
    """`kernels.softmax` in one pass over the scores; queries beyond the text, which may see nothing, have zeros."""
    blind = ~may.any(-1, keepdim=True)
    return s.masked_fill(~(may | blind), -torch.inf).softmax(-1).masked_fill(blind, 0.0)


def _summed(weights: Tensor, v: Tensor, T: int) -> Heads:
    """(B, H, n, c, w) and (B, H, n, D, w) -> (B, H, T, D)."""
    return (weights @ v.transpose(-1, -2)).flatten(2, 3)[:, :, :T]
