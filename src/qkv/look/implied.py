"""The map that random features imply beside that of the softmax they stand for: a frozen value, to a page or a PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..messages import t
from .fonts import drawable
from .plots import SOFT, _figure, _heat, _png, _style
from .tokens import display, group
from .views import MAX_SIDE, Alignment, Array, _array, _freeze, _trim, pooled


@dataclass(frozen=True, eq=False)
class Implied:
    """implied and exact (T, T) of one layer over the tokens of a text; rows of each sum to 1."""

    tokens: Sequence[str]
    implied: Any
    exact: Any
    label: str = ""

    def __post_init__(self) -> None:
        n = len(self.tokens)
        a, b = (
            _trim(_array(m, 2, name), n, n, name)
            for m, name in ((self.implied, "implied weights"), (self.exact, "exact weights"))
        )
        _freeze(self, tokens=tuple(self.tokens), implied=a, exact=b)

    @property
    def moved(self) -> float:
        """The share of a row's weight that lies elsewhere than in the softmax, mean over rows: ½ Σ_s |implied - exact|."""
        return float(abs(self.implied - self.exact).sum(1).mean() / 2) if self.implied.size else 0.0

    def views(self) -> tuple[Alignment, Alignment]:
        """Two maps of a page: implied, which is approximate and says so, and exact."""
        implied = t(
            f"approximate, as random features imply it: {self.moved:.1%} of the weight is elsewhere",
            f"근사 (무작위 특징이 뜻하는 지도): 가중치의 {self.moved:.1%}가 다른 곳에 있음",
        )
        first = f"{self.label}: " if self.label else ""
        exact = t("exact, the softmax of the same q and k", "정확 (같은 q, k의 softmax)")
        return (
            Alignment(self.tokens, self.tokens, self.implied, first + implied),
            Alignment(self.tokens, self.tokens, self.exact, first + exact),
        )

    def _repr_png_(self) -> bytes:
        return implied_png(self)


def implied_png(view: Implied, title: str = "") -> bytes:
    """Two panels: the implied map, labelled approximate, and the exact one; a row looks, a column is looked at."""
    size = max(1, -(-len(view.tokens) // MAX_SIDE))
    with _style():
        figure = _figure(10.4, 5.6, pad=0.08)
        panels = figure.subplots(1, 2)
        for axes, shown in zip(panels, view.views(), strict=True):
            cells: Array = pooled(shown.weights, size)
            _heat(axes, cells, square=True)
            said = shown.label.removeprefix(f"{view.label}: ")
            axes.set_title(drawable(said, 70), fontsize=9, color=SOFT, pad=5)
            axes.set_xticks([])
            axes.set_yticks([])
        return _png(figure, title or view.label, group(display(view.tokens), size), size)
