"""The same patterns on an accelerator: flex_attention over the blocks of a mask (Dong et al. 2024).

It compiles when first called and has no backward on a CPU, where `sparse` does this work."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..shapes import Heads
from .rules import FAR, Blocks, Both, Either, Pattern, causal, draws

if TYPE_CHECKING:
    from .patterns import Allowed

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]  # text, query, key: numbers without axes -> bool
Mod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # text, head, query, key -> bool


def mask_mod(allowed: "Allowed") -> Mod:
    """allowed.mask as a function of four numbers, which flex_attention maps over all of them."""
    rule, keep, marked = ruled(allowed.pattern, allowed), allowed.keep, allowed.marked
    marks = None if marked is None else marked & keep
    onward = causal(allowed.pattern)

    def mod(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = rule(b, i, j)
        if marks is not None:
            more = marks[b, i] | marks[b, j]
            seen = seen | (more & (j <= i) if onward else more)
        return seen & keep[b, j]

    return mod


def ruled(pattern: Pattern, allowed: "Allowed") -> Rule:
    n = allowed.lengths
    if isinstance(pattern, (Both, Either)):
        one, other = ruled(pattern.one, allowed), ruled(pattern.other, allowed)
        if isinstance(pattern, Both):
            return lambda b, i, j: one(b, i, j) & other(b, i, j)
        return lambda b, i, j: one(b, i, j) | other(b, i, j)
    if isinstance(pattern, Blocks) and pattern.random:
        return drawing(pattern, allowed)
    return lambda b, i, j: pattern.allowed(i, j, n[b])


def drawing(pattern: Blocks, allowed: "Allowed") -> Rule:
    """Its draws as a table, one for each text, that a compiled kernel can look into."""
    n, size, S = allowed.lengths, pattern.size, allowed.keep.shape[1]
    plain = Blocks(size, pattern.near, pattern.first, pattern.last, 0, pattern.seed, pattern.past)
    most = -(-S // size)
    tables = []
    for length in n.tolist():
        made = draws(pattern, most if pattern.past else -(-length // size))[:most]
        table = torch.full((most, pattern.random), FAR)
        table[: len(made), : made.shape[1]] = made
        tables.append(table)
    table = torch.stack(tables).to(n.device)

    def rule(b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return plain.allowed(i, j, n[b]) | (table[b, i // size] == j // size).any(-1)

    return rule


@cache
def compiled() -> Any:
    from torch.nn.attention import flex_attention as flex

    return torch.compile(flex.flex_attention, dynamic=False)


def flexible(q: Heads, k: Heads, v: Heads, allowed: "Allowed", *, scale: float) -> Heads:
    """softmax(scale · q kᵀ) v over the allowed pairs; rows that see nothing give zeros."""
    T = q.shape[2]
    y: Heads = compiled()(q, k[:, :, :T], v[:, :, :T], block_mask=allowed.flexible, scale=scale)
    return y
