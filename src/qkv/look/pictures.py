"""Maps and boxes laid over a picture, as a frozen value: to a page (`page.page`) or a PNG.

A map (h, w) has a weight for each cell of the picture, of a patch or of a backbone's cell; it is spread over the whole of it
and coloured up to its own largest weight.  `Thing`: what was looked for with these maps: a box that was found, a layer."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .fonts import drawable
from .plots import COLOURS, DPI, INK, _figure, _png, _style
from .tokens import visible
from .views import UNIT, Array, _array, _freeze

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bytes = NDArray[np.uint8]
Corners = tuple[float, float, float, float]
MAX_SIDE = 384  # pixels of a picture in a page
MAX_THINGS, MAX_CELLS = 64, 4096  # … and things, and cells of a map
ON_PNG = 12  # things that a PNG shows


@dataclass(frozen=True, eq=False)
class Thing:
    """A name, where it is (x0, y0, x1, y1 in pixels) if it is somewhere, and maps {name: (h, w)}."""

    name: str
    maps: Mapping[str, Any]
    box: Corners | None = None


@dataclass(frozen=True, eq=False)
class Overlay:
    """A picture (H, W, 3) of bytes and what to lay over it.

    fields {name: (cells, cells)}: where each cell of `grid` (rows, columns) looks, row by row; on a page a click on the
    picture chooses the cell.  heat: what is looked at is coloured over a grey picture, each map from its smallest weight
    to its largest; otherwise what is not looked at is veiled.  Raises UsageError for a picture or a map of another shape, QkvError (QKV-075) for weights that are not finite."""

    picture: Any
    things: Sequence[Thing]
    label: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    grid: tuple[int, int] = (1, 1)
    heat: bool = False

    def __post_init__(self) -> None:
        picture = np.asarray(self.picture)
        if picture.ndim != 3 or picture.shape[2] not in (1, 3) or picture.dtype != np.uint8:
            raise UsageError(
                f"a picture of shape {picture.shape}, {picture.dtype}",
                fix="give bytes (height, width, 3)",
            )
        made = [
            Thing(x.name, {n: _array(m, 2, n) for n, m in x.maps.items()}, x.box)
            for x in self.things[:MAX_THINGS]
        ]
        fields = {n: _array(m, 2, n) for n, m in self.fields.items()}
        whole = picture.repeat(3 // picture.shape[2], 2)
        whole = grey(whole) if self.heat else whole
        _freeze(self, picture=whole, things=tuple(made), fields=fields)

    def to_dict(self) -> dict[str, Any]:
        small, by = shrunk(self.picture, MAX_SIDE)
        height, width = small.shape[:2]
        return {
            "type": "overlay",
            "label": visible(self.label, 300),
            "width": width,
            "height": height,
            "rgb": base64.b64encode(small.tobytes()).decode("ascii"),
            "unit": UNIT,
            "things": [
                {
                    "name": visible(x.name, 80),
                    "box": None if x.box is None else [round(v * by, 2) for v in x.box],
                    "maps": [
                        {"name": visible(n, 80), "weights": parts(self.shown(m))}
                        for n, m in x.maps.items()
                    ],
                }
                for x in self.things
            ],
            "heat": self.heat,
            "grid": list(self.grid),
            "fields": [
                {"name": visible(n, 80), "weights": [parts(self.shown(row[None]))[0] for row in m]}
                for n, m in self.fields.items()
            ],
        }

    def shown(self, weights: Array) -> Array:
        """The part of a map that is drawn."""
        return weights - weights.min(initial=np.inf) if self.heat and weights.size else weights

    def _repr_png_(self) -> bytes:
        return overlay_png(self)


def grey(picture: Bytes) -> Bytes:
    """(H, W, 3) by how light each pixel is (ITU-R BT.601), half as contrasting, so that colours can be seen on it."""
    light = picture.astype(np.float64) @ (0.299, 0.587, 0.114)
    soft: Bytes = np.rint(64 + light / 2).astype(np.uint8)
    return soft[..., None].repeat(3, 2)


def shrunk(picture: Bytes, most: int) -> tuple[Bytes, float]:
    """(the picture with no side above `most`, by how much it was made smaller)."""
    H, W = picture.shape[:2]
    by = min(1.0, most / max(H, W))
    if by == 1.0:
        return np.ascontiguousarray(picture), 1.0
    from PIL import Image

    size = max(1, round(W * by)), max(1, round(H * by))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX)), by


def parts(weights: Array) -> list[list[int]]:
    """Whole thousandths of the largest weight; a map of too many cells shows every other one."""
    step = max(1, ceil((weights.size / MAX_CELLS) ** 0.5))
    few = weights[::step, ::step]
    top = max(float(few.max(initial=0.0)), 1e-12)
    made: list[list[int]] = np.rint(few / top / UNIT).astype(int).tolist()
    return made


# -- PNG ----------------------------------------------------------------------------------------------------


def overlay_png(view: Overlay, title: str = "") -> bytes:
    """A panel for each thing: the picture under the last of its maps, and its box.  At most ON_PNG things."""
    things = view.things[:ON_PNG] or (Thing("", {}),)
    columns = min(4, len(things))
    rows = ceil(len(things) / columns)
    H, W = view.picture.shape[:2]
    wide = 3.0
    tall = min(6.0, max(0.8, wide * H / W))
    with _style():
        figure = _figure(wide * columns + 0.2, (tall + 0.35) * rows + 0.5, pad=0.05)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in panels:
            axes.axis("off")
        for axes, thing in zip(panels, things, strict=False):
            axes.imshow(view.picture, extent=(0, W, H, 0), interpolation="nearest")
            if thing.maps:
                shown = view.shown(list(thing.maps.values())[-1])
                (_heat if view.heat else _veil)(axes, shown, (H, W))
            if thing.box is not None:
                _frame(axes, thing.box, COLOURS[1])
            axes.set_xlim(0, W)
            axes.set_ylim(H, 0)
            axes.set_title(drawable(thing.name, 40), fontsize=9, color=INK, pad=3)
        return _png(figure, title or view.label, [])


def boxes_png(picture: Bytes, things: Sequence[Thing]) -> bytes:
    """The picture in its own size (at least 320 pixels wide) with every box and its name, a colour for each first word."""
    H, W = picture.shape[:2]
    scale = max(1.0, 320 / W)
    names = list(dict.fromkeys(x.name.split(" ")[0] for x in things))
    with _style():
        figure = _figure(W * scale / DPI, H * scale / DPI, pad=0.0)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.axis("off")
        shown = picture.repeat(3 // picture.shape[2], 2)
        axes.imshow(shown, extent=(0, W, H, 0), interpolation="nearest", aspect="auto")
        for thing in things:
            if thing.box is not None:
                colour = COLOURS[names.index(thing.name.split(" ")[0]) % len(COLOURS)]
                _frame(axes, thing.box, colour)
                _name(axes, thing, colour, (H, W))
        axes.set_xlim(0, W)
        axes.set_ylim(H, 0)
        return _png(figure, "", [])


def _veil(axes: "Axes", weights: Array, size: tuple[int, int]) -> None:
    """Where little is looked at, the picture is veiled in white; where most is, it shows as it is."""
    H, W = size
    part = weights / max(float(weights.max(initial=0.0)), 1e-12)
    rgba = np.ones((*part.shape, 4))
    rgba[..., 3] = 0.85 * (1 - part)
    axes.imshow(rgba, extent=(0, W, H, 0), interpolation="bilinear")


def _heat(axes: "Axes", weights: Array, size: tuple[int, int]) -> None:
    """Where most is looked at, the picture is coloured."""
    H, W = size
    rgba = np.empty((*weights.shape, 4))
    rgba[..., :3] = [int(COLOURS[1][k : k + 2], 16) / 255 for k in (1, 3, 5)]
    rgba[..., 3] = 0.85 * weights / max(float(weights.max(initial=0.0)), 1e-12)
    axes.imshow(rgba, extent=(0, W, H, 0), interpolation="bilinear")


def _frame(axes: "Axes", box: Corners, colour: str) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box
    for width, edge in ((3.0, "white"), (1.6, colour)):  # seen on dark and on light
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge, linewidth=width)
        )


def _name(axes: "Axes", thing: Thing, colour: str, size: tuple[int, int]) -> None:
    """The name above the box, or within it where there is no room above."""
    x0, y0 = (thing.box or (0.0, 0.0))[:2]
    above = y0 > 0.06 * size[0]
    axes.text(
        max(x0, 0.0),
        max(y0, 0.0),
        drawable(thing.name, 40),
        fontsize=7,
        color="white",
        va="bottom" if above else "top",
        ha="left",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
        clip_on=True,
    )
