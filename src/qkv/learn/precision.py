"""Average precision of boxes as COCO defines it (Lin et al. 2014, section 5; the numbers are faster-coco-eval's)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Scene:
    """A picture's boxes, x0 y0 x1 y1 in pixels: what is there, and what was said with which score."""

    size: tuple[int, int]  # height, width
    corners: Floats  # (n, 4)
    classes: Ints  # (n)
    said: Floats  # (m, 4)
    named: Ints  # (m)
    scores: Floats  # (m)


def average_precision(scenes: Sequence[Scene], n_classes: int) -> dict[str, float]:
    """{"map", "map50", "map75"} in 0 … 1: the mean over classes of the area under precision over recall; map is the mean over
    overlaps .50, .55, … .95.  nan where no box is there to be found.

    Raises MissingError QKV-022 where faster-coco-eval is not installed."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingError(
            "average precision is measured by faster-coco-eval, which is not installed",
            fix='pip install "qkv[vision]"',
            code="QKV-022",
        ) from None
    names = ("map", "map50", "map75")
    if not any(len(s.corners) for s in scenes):
        return dict.fromkeys(names, float("nan"))
    if not any(len(s.said) for s in scenes):
        return dict.fromkeys(names, 0.0)
    truth = COCO(_truth(scenes, n_classes))
    judge = COCOeval_faster(truth, truth.loadRes(_said(scenes)), "bbox", print_function=_silent)
    judge.run()
    return {name: float(judge.stats[i]) for i, name in enumerate(names)}


def _silent(*_: object, **__: object) -> None:
    return None


def _truth(scenes: Sequence[Scene], n_classes: int) -> dict[str, Any]:
    images = [{"id": i, "height": s.size[0], "width": s.size[1]} for i, s in enumerate(scenes, 1)]
    found = [
        {"image_id": i, "category_id": int(c) + 1, "bbox": _box(b), "area": _area(b), "iscrowd": 0}
        for i, s in enumerate(scenes, 1)
        for b, c in zip(s.corners, s.classes, strict=True)
    ]
    annotations = [{"id": n, **a} for n, a in enumerate(found, 1)]
    categories = [{"id": c + 1, "name": str(c)} for c in range(n_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _said(scenes: Sequence[Scene]) -> list[dict[str, Any]]:
    return [
        {"image_id": i, "category_id": int(c) + 1, "bbox": _box(b), "score": float(p)}
        for i, s in enumerate(scenes, 1)
        for b, c, p in zip(s.said, s.named, s.scores, strict=True)
    ]


def _box(b: Floats) -> list[float]:
    x0, y0, x1, y1 = (float(v) for v in b)
    return [x0, y0, x1 - x0, y1 - y0]


def _area(b: Floats) -> float:
    return float((b[2] - b[0]) * (b[3] - b[1]))
