"""Patterns that kernels recognise: a band beside the diagonal, tokens that see all, blocks."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import lcm

from .rules import FAR, Blocks, Both, Causal, Dilated, Either, Full, Global, Pattern, Window

NONE = -1  # the reach of a band that holds nothing, not even the diagonal


@dataclass(frozen=True)
class Form:
    """allowed(i, j): j stands at most `left` before and `right` after i, at whole `step`s, or i or j is one of the `first`
    tokens, or `blocks` allow it; and with `causal` j <= i besides."""

    left: int
    right: int
    step: int = 1
    first: int = 0
    causal: bool = False
    blocks: Blocks | None = None

    @property
    def band(self) -> bool:
        """Nothing but a band?"""
        return self.blocks is None and not self.first and self.left != NONE

    @property
    def everything(self) -> bool:
        return self.blocks is None and self.left >= FAR and self.right >= FAR and self.step == 1

    @property
    def sparse(self) -> bool:
        """Is it worth a kernel of its own?"""
        return self.blocks is not None or 0 <= self.left < FAR > self.right >= 0


@lru_cache(maxsize=256)
def form(pattern: Pattern) -> Form | None:
    """What a pattern amounts to; None where no kernel knows."""
    if isinstance(pattern, Full):
        return Form(FAR, FAR)
    if isinstance(pattern, Causal):
        return Form(FAR, 0, causal=True)
    if isinstance(pattern, Window):
        return Form(pattern.radius, pattern.radius)
    if isinstance(pattern, Dilated):
        reach = pattern.radius * pattern.step
        return Form(reach, reach, pattern.step if reach else 1)
    if isinstance(pattern, Global):
        return Form(NONE, NONE, first=pattern.first)
    if isinstance(pattern, Blocks):
        return Form(NONE, NONE, blocks=pattern)
    if isinstance(pattern, (Both, Either)):
        one, other = form(pattern.one), form(pattern.other)
        if one is not None and other is not None:
            return both(one, other) if isinstance(pattern, Both) else either(one, other)
    return None


def both(x: Form, y: Form) -> Form | None:
    for one, other in ((x, y), (y, x)):
        if one.everything:
            return other
        if one == Form(FAR, 0, causal=True):
            return replace(other, right=min(other.right, 0), causal=True)
    if not (x.band and y.band):
        return None
    step = lcm(x.step, y.step)
    left, right = min(x.left, y.left), min(x.right, y.right)
    return Form(left, right, step, causal=x.causal or y.causal)


def either(x: Form, y: Form) -> Form | None:
    if x.everything or y.everything:
        return Form(FAR, FAR)
    if x.causal != y.causal:  # a band that stops at the diagonal is one without being told so
        x, y = (replace(f, causal=False) if f.band else f for f in (x, y))
        if x.causal or y.causal:
            return None
    first = max(x.first, y.first)
    for one, other in ((x, y), (y, x)):
        if other.left == NONE and other.blocks is None:
            return replace(one, first=first)
    if x.blocks is not None or y.blocks is not None:
        return None
    for one, other in ((x, y), (y, x)):
        holds = one.left >= other.left and one.right >= other.right
        if one.step == other.step:
            left, right = max(x.left, y.left), max(x.right, y.right)
            return Form(left, right, one.step, first, one.causal)
        if holds and other.step % one.step == 0:
            return replace(one, first=first)
    return None
