"""The same views and the curves of a run as PNG bytes: drawn by matplotlib without a screen, the same bytes every time.

Hangul is drawn with an installed font; where there is none it is romanised, and the picture says so.  matplotlib is
imported inside the functions, and no global setting of it is changed."""

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..messages import t
from .colour import stops
from .fonts import drawable, families, korean_font
from .tokens import Token, display, group, romanise
from .views import MAX_SIDE, Alignment, Array, Grid, Group, pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]  # (step, value)
Interval = tuple[float, float, float, float]  # x, value, low, high
INK, SOFT, FAINT = "#23252b", "#666a73", "#e5e2da"
# Okabe & Ito 2008: eight colours that stay apart for every kind of colour vision; yellow is too pale on white
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#23252b")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 144


def alignment_png(view: Alignment, title: str = "") -> bytes:
    """The alignment as a heat map: a row per target token, a column per source token, weights where they fit."""
    size = max(1, -(-max(view.weights.shape, default=1) // MAX_SIDE))
    rows = group(display(view.target_tokens), size)
    columns = group(display(view.source_tokens), size)
    weights = pooled(view.weights, size)
    T, S = len(rows), len(columns)
    with _style():
        cell = min(0.46, max(0.12, 11 / max(T, S, 1)))  # inches
        figure, axes = _canvas(
            min(14.0, 2.0 + cell * max(S, 5)), min(14.0, 1.6 + 0.8 * cell * max(T, 4))
        )
        image = _heat(axes, weights)
        _ticks(axes, rows, columns, min(11.0, max(6.0, 40 * cell)))
        if max(T, S) <= 16:
            _numbers(axes, weights)
        if image is not None:
            bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02, aspect=24)
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0, labelsize=9, labelcolor=SOFT)
        return _png(figure, title or view.label, [*rows, *columns], size)


def grid_png(view: Grid, which: Group = "cross", title: str = "") -> bytes:
    """Every head of one group as a small map: a row per layer, a column per head, each up to its own maximum."""
    groups = view.groups()
    if which not in groups:
        raise UsageError(f"no {which} maps; there are: {', '.join(groups) or 'none'}")
    layers = list(groups[which].values())
    H = max(len(heads) for heads in layers)
    inches = max(0.35, min(1.5, 14 / max(H, len(layers))))
    with _style():
        figure = _figure(inches * H + 1.0, inches * len(layers) + 0.9, pad=0.05)
        panels = figure.subplots(len(layers), H, squeeze=False)
        for row, (heads, line) in enumerate(zip(layers, panels, strict=True)):
            for column, axes in enumerate(line):
                axes.axis("off")
                if column < len(heads):
                    side = max(heads[column].shape)
                    _heat(axes, pooled(heads[column], max(1, -(-side // MAX_SIDE))), square=True)
                if row == 0:
                    axes.set_title(str(column + 1), fontsize=9, color=SOFT, pad=3)
            line[0].text(
                -0.12,
                0.5,
                str(row + 1),
                transform=line[0].transAxes,
                fontsize=9,
                color=SOFT,
                va="center",
                ha="right",
            )
        figure.supylabel(drawable(t("layer × head", "층 × 헤드")), fontsize=10, color=SOFT)
        return _png(figure, title, [])


def curve_png(
    series: Mapping[str, Points],
    *,
    title: str = "",
    x: str = "step",
    y: str = "",
    log: bool = False,
) -> bytes:
    """Lines over one pair of axes: losses, learning rate, BLEU over steps; accuracy over length.

    A value that is not finite leaves a gap.  log: the y axis is logarithmic and values <= 0 are gaps too."""
    with _style():
        figure, axes = _canvas(7.6, 4.4)
        for k, (name, points) in enumerate(series.items()):
            steps, values = _columns(points, 2)
            if log:
                values = np.where(values > 0, values, np.nan)
            axes.plot(steps, values, **_look(k, name), marker=_mark(k, values), markersize=5)
        if log and any(v > 0 for points in series.values() for _, v in points if math.isfinite(v)):
            axes.set_yscale("log")
        return _finish(figure, axes, series, title, x, y)


def length_png(
    curves: Mapping[str, Sequence[Interval]],
    *,
    title: str = "",
    x: str = "source length (tokens)",
    y: str = "BLEU",
) -> bytes:
    """Quality by source length with bootstrap intervals, one curve per model (Bahdanau et al. 2015, figure 2).

    curves: {model: [(length, value, low, high), ...]}."""
    with _style():
        figure, axes = _canvas(7.6, 4.6)
        for k, (name, points) in enumerate(curves.items()):
            lengths, values, low, high = _columns(points, 4)
            ends = np.maximum(
                np.stack([values - low, high - values]), 0
            )  # rounding may put a value past its end
            axes.fill_between(
                lengths, low, high, color=COLOURS[k % len(COLOURS)], alpha=0.10, linewidth=0
            )
            axes.errorbar(
                lengths,
                values,
                yerr=ends,
                **_look(k, name),
                marker=MARKS[k % len(MARKS)],
                markersize=5,
                capsize=3,
                elinewidth=1,
            )
        axes.set_ylim(bottom=0)
        return _finish(figure, axes, curves, title, x, y)


# ---- pieces of a figure


def _figure(width: float, height: float, pad: float = 0.12) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad)  # inches
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _canvas(width: float, height: float) -> "tuple[Figure, Axes]":
    figure = _figure(width, height)
    return figure, figure.subplots()


def _style() -> AbstractContextManager[None]:
    """Fonts and colours for this figure only; fonts are looked up glyph by glyph."""
    from matplotlib import rc_context

    settings: Any = {
        "font.family": list(families()),
        "text.parse_math": False,  # a token may hold dollar signs
        "axes.unicode_minus": False,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": SOFT,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
    }
    return rc_context(settings)


def _heat(axes: "Axes", weights: Array, square: bool = False) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    if not weights.size:
        return None
    top = max(float(weights.max()), 1e-3)
    colours = LinearSegmentedColormap.from_list("weights", stops(33), N=256)
    shape: Any = weights.shape[1] / weights.shape[0] if square else "auto"
    return axes.imshow(
        weights, cmap=colours, vmin=0, vmax=top, aspect=shape, interpolation="nearest"
    )


def _ticks(axes: "Axes", rows: Sequence[Token], columns: Sequence[Token], size: float) -> None:
    """Tokens along both axes, every k-th where they are too many, and white lines between the cells."""
    across, down = (
        range(0, len(columns), -(-len(columns) // 100) or 1),
        range(0, len(rows), -(-len(rows) // 100) or 1),
    )
    axes.xaxis.tick_top()
    axes.set_xticks(across, [drawable(columns[k].text, 24) for k in across], fontsize=size)
    axes.set_yticks(down, [drawable(rows[k].text, 24) for k in down], fontsize=size)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    if len(columns) > 24:
        axes.tick_params(axis="x", labelrotation=90)
    elif any(len(c.text) > 4 for c in columns):
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="left", va="bottom", rotation_mode="anchor")
    if max(len(rows), len(columns)) <= 80:
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(which="minor", color="white", linewidth=1.2)


def _numbers(axes: "Axes", weights: Array) -> None:
    top = max(float(weights.max(initial=0)), 1e-3)
    for (i, j), w in np.ndenumerate(weights):
        if w >= 0.05:
            axes.text(
                j,
                i,
                f"{w:.2f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if w / top > 0.5 else INK,
            )


def _columns(points: Sequence[Sequence[float]], width: int) -> list[Array]:
    table = np.asarray([tuple(p) for p in points], dtype=np.float64).reshape(-1, width)
    table[~np.isfinite(table)] = np.nan
    return list(table.T)


def _look(k: int, name: str) -> dict[str, Any]:
    """Colour, dashes and name of the k-th line; after a round of colours the dashes change."""
    dash = ("-", "--", ":", "-.")[k // len(COLOURS) % 4]
    # matplotlib hides a line whose name begins with an underscore
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": dash,
        "linewidth": 2.0,
        "label": " " * name.startswith("_") + drawable(name),
    }


def _mark(k: int, values: Array) -> str:
    return MARKS[k % len(MARKS)] if len(values) <= 40 else ""


def _finish(
    figure: "Figure", axes: "Axes", names: Mapping[str, object], title: str, x: str, y: str
) -> bytes:
    axes.set_xlabel(drawable(x), fontsize=11)
    axes.set_ylabel(drawable(y), fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=10)
    if names:
        axes.legend(frameon=False, fontsize=10)
    return _png(figure, title, [Token(n) for n in names])


def _png(figure: "Figure", title: str, tokens: Sequence[Token], size: int = 1) -> bytes:
    """The figure's bytes, with a note where it shows something other than was asked for."""
    notes = []
    if size > 1:
        notes.append(
            t(
                f"one cell: the strongest of {size} × {size} tokens",
                f"한 칸: 토큰 {size} × {size}개 중 가장 큰 값",
            )
        )
    if korean_font() is None and any(romanise(s) != s for s in [title, *(k.text for k in tokens)]):
        notes.append("no Korean font found: Hangul is romanised")
    if title:
        figure.suptitle(drawable(title, 90), fontsize=13, color=INK)
    if notes:
        figure.supxlabel(drawable(" · ".join(notes), 160), fontsize=8, color=SOFT)
    out = io.BytesIO()
    figure.savefig(
        out, format="png", metadata={"Software": None}
    )  # no version, no date: equal bytes
    return out.getvalue()
