"""Which pairs of tokens a pattern allows, and which of them were used: a frozen value, to a page or a PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..messages import t
from .fonts import drawable
from .plots import SOFT, _figure, _heat, _png, _style
from .tokens import display, group
from .views import MAX_SIDE, Alignment, Array, _array, _freeze, _trim, pooled


@dataclass(frozen=True, eq=False)
class Sparsity:
    """allowed (T, T) bool and weights (T, T) of one layer over the tokens of a text.

    Raises UsageError where a weight lies outside what is allowed, or shapes differ."""

    tokens: Sequence[str]
    allowed: Any
    weights: Any
    label: str = ""

    def __post_init__(self) -> None:
        n = len(self.tokens)
        allowed = _trim(_array(self.allowed, 2, "allowed pairs"), n, n, "allowed pairs") > 0
        weights = _trim(_array(self.weights, 2, "weights"), n, n, "weights")
        if weights[~allowed].any():
            raise UsageError(
                f"a weight of {weights[~allowed].max():.3g} on a pair that is not allowed",
                fix="give the pattern and the weights of one layer of one pass",
            )
        _freeze(self, tokens=tuple(self.tokens), allowed=allowed, weights=weights)

    @property
    def density(self) -> float:
        """The share of pairs that is allowed."""
        return float(self.allowed.mean()) if self.allowed.size else 0.0

    @property
    def used(self) -> float:
        """The share of the allowed pairs that holds nine tenths of the weights."""
        held = np.sort(self.weights[self.allowed])[::-1]
        if not held.size or not held.sum():
            return 0.0
        n = int(np.searchsorted(held.cumsum(), 0.9 * held.sum())) + 1
        return min(n, held.size) / held.size

    def views(self) -> tuple[Alignment, Alignment]:
        """Two maps of a page: allowed, and used."""
        allowed = t(f"allowed: {self.density:.1%} of the pairs", f"허용: 쌍의 {self.density:.1%}")
        used = t(
            f"used: {self.used:.1%} of these hold 90 % of the weight",
            f"사용: 그중 {self.used:.1%}에 가중치의 90 %",
        )
        first = f"{self.label}: " if self.label else ""
        return (
            Alignment(self.tokens, self.tokens, self.allowed.astype(float), first + allowed),
            Alignment(self.tokens, self.tokens, self.weights, first + used),
        )

    def _repr_png_(self) -> bytes:
        return sparsity_png(self)


def sparsity_png(view: Sparsity, title: str = "") -> bytes:
    """Two panels: the pairs that are allowed, and the weights over them; a row looks, a column is looked at."""
    size = max(1, -(-len(view.tokens) // MAX_SIDE))
    allowed, used = view.views()
    with _style():
        figure = _figure(10.4, 5.6, pad=0.08)
        panels = figure.subplots(1, 2)
        for axes, shown in zip(panels, (allowed, used), strict=True):
            cells: Array = pooled(shown.weights, size)
            _heat(axes, cells, square=True)
            said = shown.label.removeprefix(f"{view.label}: ")
            axes.set_title(drawable(said, 70), fontsize=10, color=SOFT, pad=5)
            axes.set_xticks([])
            axes.set_yticks([])
        return _png(figure, title or view.label, group(display(view.tokens), size), size)
