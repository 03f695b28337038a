"""Coloured circles, squares and triangles on noisy grey ground, with their boxes: what a detector can learn in minutes.

    builtin:shapes/train?n=4000&size=96&most=4&seed=0

Picture i of a split is a pure function of (split, seed, size, most, i): no picture of one split is in another."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from ...config import from_dict
from ...errors import ConfigError, MissingError, did_you_mean
from ..objectives.base import Draw
from ..report import SkipReport
from .decode import Bytes

PREFIX = "builtin:"
KINDS = ("circle", "square", "triangle")
SPLITS = ("train", "dev", "test")
PURPOSE = (
    48  # of random numbers: objectives/base.py, batches.py and augment.py have the smaller ones
)
SMALLEST, LARGEST = 0.2, 0.5  # of the picture's side
HIDDEN = 0.2  # the most of the smaller of two boxes that the other may cover
TRIES = 12
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """n pictures of size × size pixels with 1 … most things each."""

    n: int = 4000
    size: int = 96
    most: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("n", 1, 1 << 30), ("size", 16, 1024), ("most", 1, 16)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{name} must be {low} … {high:,} (got {getattr(self, name)})",
                    fix="builtin:shapes/train?n=4000&size=96&most=4",
                )


def of_path(path: str) -> tuple[Shapes, str]:
    """(what is asked for, the split).  Raises MissingError QKV-020, ConfigError QKV-010, 011 or 012."""
    place, _, query = path.partition("?")
    name, _, split = place.removeprefix(PREFIX).partition("/")
    split = split or "train"
    if name != "shapes" or split not in SPLITS:
        known = [f"shapes/{s}" for s in SPLITS]
        raise MissingError(
            f"no built-in pictures {f'{name}/{split}'!r}",
            place=path,
            fix=did_you_mean(f"{name}/{split}", known),
        )
    try:
        asked = {k: int(v) for k, v in parse_qsl(query, strict_parsing=bool(query))}
    except ValueError as e:
        raise ConfigError(
            f"{query!r}: {e}", place=path, fix="write ?n=4000&size=96", code="QKV-011"
        ) from None
    return from_dict(Shapes, asked, place=path), split


def pictures(
    path: str, report: SkipReport
) -> Iterator[tuple[Bytes, NDArray[np.float32], NDArray[np.int64]]]:
    """Pixels (size, size, 3), corners (n, 4) in pixels and kinds (n) of every picture, in order."""
    asked, split = of_path(path)
    for i in range(asked.n):
        report.use()
        yield picture(asked, split, i)


def picture(
    asked: Shapes, split: str, i: int
) -> tuple[Bytes, NDArray[np.float32], NDArray[np.int64]]:
    """Picture i of a split."""
    draw = Draw(PURPOSE, SPLITS.index(split), asked.seed, asked.size, asked.most, i)
    canvas = _ground(draw, asked.size)
    boxes: list[Box] = []
    kinds: list[int] = []
    for _ in range(1 + draw.one(asked.most)):
        kind, box = draw.one(len(KINDS)), _place(draw, asked.size, boxes)
        colour = _colour(draw)
        if box is None:  # no room is left
            continue
        inside = _inside(kind, box, asked.size, bool(draw.uniform(1)[0] < 0.5))
        canvas[inside] = 0.15 * canvas[inside] + 0.85 * colour
        boxes.append(box)
        kinds.append(kind)
    noise = draw.uniform(canvas.size).reshape(canvas.shape) - 0.5
    canvas = canvas + (0.05 + 0.2 * draw.uniform(1)[0]) * noise
    pixels = np.rint(canvas.clip(0, 1) * 255).astype(np.uint8)
    return pixels, np.array(boxes, np.float32).reshape(-1, 4), np.array(kinds, np.int64)


def _ground(draw: Draw, size: int) -> Floats:
    """(size, size, 3): a surface of nearly grey tones that rises and falls from one of 4 × 4 fields to the next."""
    tone, tint = 0.2 + 0.5 * draw.uniform(25).reshape(5, 5, 1), 0.1 * (draw.uniform(3) - 0.5)
    corners = tone + tint
    at = np.linspace(0, 4, size, endpoint=False)
    low = at.astype(np.int64)
    part = (at - low)[:, None]
    rows = corners[low] * (1 - part[..., None]) + corners[low + 1] * part[..., None]
    made: Floats = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return made


def _colour(draw: Draw) -> Floats:
    """A colour of any hue, far from grey."""
    u = draw.uniform(3)
    strong, weak = 0.7 + 0.3 * u[0], 0.3 * u[1]
    return np.array([strong, weak, weak + (strong - weak) * u[2]])[draw.order(3)]


def _place(draw: Draw, size: int, taken: list[Box]) -> Box | None:
    """A square place that hides little of the others, or None after TRIES."""
    for _ in range(TRIES):
        u = draw.uniform(3)
        side = round(size * (SMALLEST + (LARGEST - SMALLEST) * float(u[0])))
        x, y = (int(v * (size - side + 1)) for v in u[1:])
        box = (float(x), float(y), float(x + side), float(y + side))
        if all(_hidden(box, other) <= HIDDEN for other in taken):
            return box
    return None


def _hidden(a: Box, b: Box) -> float:
    """The share of the smaller box that the other covers."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    least = min((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return max(w, 0.0) * max(h, 0.0) / least


def _inside(kind: int, box: Box, size: int, upside_down: bool) -> NDArray[np.bool_]:
    """(size, size): the pixels whose centre lies in the figure that fills the box."""
    x0, y0, x1, y1 = box
    at = np.arange(size) + 0.5
    dx, y = np.abs(at[None, :] - (x0 + x1) / 2), at[:, None]
    half = (x1 - x0) / 2
    if KINDS[kind] == "circle":
        made = dx**2 + (y - (y0 + y1) / 2) ** 2 <= half**2
    elif KINDS[kind] == "square":
        made = (dx <= half) & (y >= y0) & (y <= y1)
    else:
        down = (y1 - y if upside_down else y - y0) / (y1 - y0)
        made = (dx <= half * down) & (down >= 0) & (down <= 1)
    return np.asarray(made)
