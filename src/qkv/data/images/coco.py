"""Boxes of pictures in COCO's JSON (Lin et al. 2014): images, annotations with bbox = x, y, width, height in pixels, categories.

The report counts every entry of "images" and of "annotations" by its list and its number in it, from 1."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..lines import LONE, Line, read_whole
from ..lines import decode as text_of
from ..report import SkipReport
from .decode import Bytes, Unusable, from_numbers
from .shapes import KINDS, pictures
from .sources import Blob, Entry, ImageSource, composed, entries, picture
from .tar import unsafe

INSIDE = "annotations.json"  # the name of the JSON in an archive


class Boxed(NamedTuple):
    """A picture with its boxes: corners (n, 4) x0, y0, x1, y1 in pixels of the upright picture, and their classes (n)."""

    name: str
    number: int
    pixels: Bytes  # (H, W, channels)
    blob: Blob | None  # None: it was made here
    corners: NDArray[np.float32]
    classes: NDArray[np.int64]

    @property
    def place(self) -> str:
        return f"{self.name}:{self.number}"


class Listed(NamedTuple):
    """A picture of a list: its number there, its file, and the (height, width) it is said to have."""

    number: int
    name: str
    size: tuple[float | None, float | None]


@dataclass(frozen=True)
class Coco:
    """A file that was read: its categories by id, its pictures, and the boxes of each that can be used."""

    path: str
    categories: dict[int, str]
    images: dict[int, Listed]  # by id
    boxes: dict[int, list[tuple[int, int, list[float]]]]  # image id -> number, category, bbox

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, by id; categories of one name are one class."""
        return tuple(dict.fromkeys(name for _, name in sorted(self.categories.items())))


def read_boxes(
    source: ImageSource,
    report: SkipReport,
    classes: tuple[str, ...] = (),
    channels: int = 3,
) -> tuple[tuple[str, ...], Iterator[Boxed]]:
    """(class names, the usable pictures with their boxes).  `classes`: those a model has; other categories are skipped.

    A box is cut at the picture's edge.  Raises MissingError, DataError QKV-032 (nothing usable), 033 (no COCO file)."""
    files: _Held | _Folder
    if source.kind == "builtin":
        names = classes or KINDS
        return names, _made(source, report, names, channels)
    if source.kind == "folder":
        source = replace(source, path=str(Path(source.path) / INSIDE), format="coco")
    if source.kind == "tar":
        held = {composed(e.name): light(e) for e in entries(source)}
        found = next((e for n, e in held.items() if n.rpartition("/")[2] == INSIDE), None)
        if found is None or found.raw is None:
            raise DataError(
                f"holds no {INSIDE}", place=source.path, fix="pack it with the pictures"
            )
        line = Line(1, 0, found.raw)
        coco = parsed(text_of(line, found.name, "strict", report), source.path, report)
        below = found.name.rpartition("/")[0]
        files = _Held(held, below)
    else:
        text = text_of(read_whole(source.path), source.path, "strict", report)
        coco = parsed(text, source.path, report)
        files = _Folder(source)
    names = classes or coco.classes
    if not names:
        raise DataError(
            "categories is empty: no box has a class",
            place=source.path,
            fix='"categories": [{"id": 1, "name": "cell"}]',
        )
    return names, _boxed(coco, files, names, source, report, channels)


def _made(
    source: ImageSource, report: SkipReport, names: tuple[str, ...], channels: int
) -> Iterator[Boxed]:
    """Pictures that are made here.  Raises DataError QKV-032 where the classes are others."""
    if not set(KINDS) <= set(names):
        raise DataError(
            f"it shows {', '.join(KINDS)}; the classes are {', '.join(names[:5])}",
            place=source.path,
            fix="leave objective.classes out",
            code="QKV-032",
        )
    number = np.array([names.index(kind) for kind in KINDS])
    for i, (pixels, corners, kinds) in enumerate(pictures(source.path, report), 1):
        shown = pixels if channels == 3 else from_numbers(pixels, channels, source.path)
        yield Boxed(source.path, i, shown, None, corners, number[kinds])


def light(entry: Entry) -> Entry:
    """Without the bytes that can be read again where they lie; a list of boxes is kept."""
    found_again = entry.blob.raw is None and entry.name.rpartition("/")[2] != INSIDE
    return entry._replace(raw=None) if found_again else entry


class _Held:
    """Files of an archive by the names that COCO files give them."""

    def __init__(self, held: dict[str, Entry], below: str) -> None:
        self.held, self.below = held, below

    def __call__(self, name: str) -> Entry | None:
        for folder in (self.below, f"{self.below}/images".strip("/")):
            if (entry := self.held.get(composed(f"{folder}/{name}".strip("/")))) is not None:
                return entry
        return None


def listed(source: ImageSource) -> list[Path]:
    """The pictures that a COCO file names and that are there."""
    text = text_of(read_whole(source.path), source.path, "strict", report := SkipReport())
    coco, files = parsed(text, source.path, report), _Folder(source)
    found = (files(image.name) for image in coco.images.values())
    return [Path(entry.blob.path) for entry in found if entry is not None]


class _Folder:
    def __init__(self, source: ImageSource) -> None:
        self.root = Path(source.images) if source.images else Path(source.path).parent

    def __call__(self, name: str) -> Entry | None:
        for spelled in dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name))):
            for path in (self.root / spelled, self.root / "images" / spelled):
                if path.is_file():
                    return Entry(name, 0, Blob(str(path)))
        return None


# -- the JSON ------------------------------------------------------------------------------------------


def parsed(text: str, path: str, report: SkipReport) -> Coco:
    """The three lists.  Entries that cannot be used are counted; raises DataError QKV-033 where a list is missing.

    NaN, which is no JSON and which some tools write, spoils its box and not the file."""
    try:
        values = json.loads(text)
        lists = [values[name] for name in ("categories", "images", "annotations")]
        if not all(isinstance(x, list) for x in lists):
            raise TypeError("categories, images and annotations must be lists")
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(
            f"no COCO file: {type(e).__name__} {str(e)[:100]}",
            place=path,
            fix='{"images": […], "annotations": […], "categories": […]}',
        ) from None
    categories: dict[int, str] = {}
    for number, c in enumerate(lists[0], 1):
        if not _has(c, id=int, name=str) or c["id"] in categories:
            raise DataError(
                f"category {number} is {str(c)[:60]}",
                place=path,
                fix='give each its own: {"id": 1, "name": "cell"}',
            )
        categories[c["id"]] = composed(c["name"])
    images: dict[int, Listed] = {}
    for number, image in enumerate(lists[1], 1):
        reason = _image_reason(image, images)
        if reason:
            report.skip(f"{path}/images", number, reason)
        else:
            size = number_of(image.get("height")), number_of(image.get("width"))
            images[image["id"]] = Listed(number, image["file_name"], size)
    boxes: dict[int, list[tuple[int, int, list[float]]]] = {i: [] for i in images}
    seen: set[int] = set()
    for number, a in enumerate(lists[2], 1):
        reason = _annotation_reason(a, images, categories, seen)
        if reason:
            report.skip(f"{path}/annotations", number, reason)
        else:
            boxes[a["image_id"]].append((number, a["category_id"], a["bbox"]))
    return Coco(path, categories, images, boxes)


def _has(entry: Any, **kinds: type) -> bool:
    return isinstance(entry, dict) and all(type(entry.get(k)) is kind for k, kind in kinds.items())


def _image_reason(image: Any, images: dict[int, Listed]) -> str:
    if not _has(image, id=int, file_name=str):
        return "malformed entry"
    if image["id"] in images:
        return "same id again"
    sides = image.get("height"), image.get("width")
    if any(side is not None and number_of(side) is None for side in sides):
        return "malformed entry"
    name = image["file_name"]
    return "unsafe name" if LONE.search(name) or unsafe(name) else ""


def number_of(x: Any) -> float | None:
    """A number, also one that an exporter wrote as text; None: there is none."""
    try:
        return float(x)
    except (TypeError, ValueError, OverflowError):
        return None


def _annotation_reason(
    a: Any, images: dict[int, Any], categories: dict[int, str], seen: set[int]
) -> str:
    if not _has(a, image_id=int, category_id=int):
        return "malformed entry"
    own = a.get("id")
    if type(own) is int:
        if own in seen:
            return "same id again"
        seen.add(own)
    if a["image_id"] not in images:
        return "unknown picture"
    if a["category_id"] not in categories:
        return "unknown category"
    if a.get("iscrowd"):
        return "crowd"
    return box_reason(a.get("bbox"))


def box_reason(box: Any) -> str:
    """Why x, y, width, height is no box, or nothing."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(x) in (int, float) for x in box):
        return "box is no box"
    # a whole number may be larger than any float
    if not all(abs(x) <= sys.float_info.max for x in box):
        return "box not finite"
    return "box without area" if box[2] <= 0 or box[3] <= 0 else ""


# -- pictures and their boxes --------------------------------------------------------------------------


def _boxed(
    coco: Coco,
    files: _Held | _Folder,
    names: tuple[str, ...],
    source: ImageSource,
    report: SkipReport,
    channels: int,
) -> Iterator[Boxed]:
    used = 0
    for i, (number, name, size) in coco.images.items():
        shown = f"{source.path}/{name}"
        entry = files(name)
        try:
            if entry is None:
                raise Unusable("no such picture")
            pixels = picture(entry, channels, source.max_pixels)
            if any(said not in (None, n) for said, n in zip(size, pixels.shape[:2], strict=True)):
                # resized since, or turned by a camera's note: its boxes are of another picture
                raise Unusable("not of the size it is said to be")
        except Unusable as e:
            report.skip(shown, number, e.reason)
            for at, _, _ in coco.boxes[i]:
                report.skip(f"{coco.path}/annotations", at, "picture skipped")
            continue
        report.use()
        used += 1
        corners, classes = _inside(coco, coco.boxes[i], pixels.shape[:2], names, report)
        yield Boxed(shown, number, pixels, entry.blob, corners, classes)
    if not used:
        raise DataError(
            f"no usable picture ({', '.join(report.skipped) or 'none is listed'})",
            place=source.path,
            fix='check the file names, or name the folder of the pictures: images = "…", qkv eval RUN FILE FOLDER',
            code="QKV-032",
        )


def _inside(
    coco: Coco,
    found: Iterable[tuple[int, int, list[float]]],
    shape: tuple[int, ...],
    names: tuple[str, ...],
    report: SkipReport,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes cut at the picture's edge; those that lie beyond it are counted."""
    H, W = shape
    corners, classes = [], []
    for at, category, (x, y, w, h) in found:
        box = [min(max(v, 0.0), m) for v, m in ((x, W), (y, H), (x + w, W), (y + h, H))]
        label = coco.categories[category]
        outside = box[2] <= box[0] or box[3] <= box[1]
        reason = (
            "box outside the picture" if outside else "" if label in names else "unknown category"
        )
        if reason:
            report.skip(f"{coco.path}/annotations", at, reason)
            continue
        report.use()
        corners.append(box)
        classes.append(names.index(label))
    return np.array(corners, np.float32).reshape(-1, 4), np.array(classes, np.int64)
