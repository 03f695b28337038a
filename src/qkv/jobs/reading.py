"""Sources of labelled pictures -> two sides, train and dev, all of one size, each picture on one of them."""

from collections.abc import Sized
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from ..data.images.process import Processor, Size
from ..data.images.shelf import Filler, Shelf
from ..data.images.sources import Found, ImageSource, composed, read_pictures
from ..data.objectives.classify import natural
from ..data.report import SkipReport
from ..errors import ConfigError, DataError, named
from ..model import Model
from ..parts.patches import both
from ..pictures import processor_of
from ..recipe import Recipe
from .pairs import held_out

TAKEN = 64  # pictures of at most so many pixels a side are learned in the size they have


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size with their classes: shelf[i] is of class labels[i]."""

    shelf: Shelf
    labels: np.ndarray[Any, np.dtype[np.int64]]
    names: list[str]

    def __len__(self) -> int:
        return len(self.shelf)


class Reader:
    """Sources -> two sides of pictures, train (0) and dev (1), all of one size.

    `processor` None: the first picture decides.  `classes` empty: every label is one."""

    def __init__(
        self,
        recipe: Recipe | None,
        processor: Processor | None,
        channels: int,
        classes: tuple[str, ...],
    ) -> None:
        self.recipe, self.processor, self.channels = recipe, processor, channels
        self.settle(classes)
        self.fillers = (Filler(self.fit, channels), Filler(self.fit, channels))
        self.labels: tuple[list[str], list[str]] = ([], [])
        self.names: tuple[list[str], list[str]] = ([], [])
        self.keys: tuple[set[bytes], set[bytes]] = (set(), set())
        self.sizes: set[tuple[int, int]] = set()

    def settle(self, classes: tuple[str, ...]) -> None:
        """From now on these are all classes there are."""
        self.classes, self.named = classes, {composed(name): name for name in classes}

    def fit(self, x: Any) -> Any:
        made = x if self.processor is None else self.processor.fitted(x)
        self.sizes.add(made.shape[:2])
        return made

    def read(self, source: ImageSource, report: SkipReport, dev: float) -> None:
        """`dev`: the share that goes to the dev side, by a hash of the pixels, so that no picture is on both."""
        for f in read_pictures(source, report, self.channels):
            label = self.label(f, source)
            if label is None:
                report.drop(f.place, "unknown label")
                continue
            if self.processor is None:
                self.processor = decided(self.recipe, f.pixels.shape)
            key = blake2b(f.pixels.tobytes(), digest_size=16)
            side = int(dev == 1.0 or (dev > 0 and held_out(key.hexdigest(), dev)))
            with named(f.place):
                self.fillers[side].add(f.pixels, f.blob)
            self.labels[side].append(label)
            self.names[side].append(f.name if source.kind != "idx" else f.place)
            self.keys[side].add(key.digest())

    def label(self, f: Found, source: ImageSource) -> str | None:
        """The name of its class; None: it is none of the classes.  A number of an idx file counts classes that have names."""
        if not self.classes:
            return f.label
        counts = source.kind == "idx" and not any(name.isdecimal() for name in self.classes)
        if not counts:
            return self.named.get(f.label)
        n = int(f.label)
        return self.classes[n] if n < len(self.classes) else None

    def found(self) -> tuple[str, ...]:
        return self.classes or tuple(sorted({*self.labels[0], *self.labels[1]}, key=natural))

    def pictures(self, side: int, classes: tuple[str, ...]) -> Pictures:
        number = {name: i for i, name in enumerate(classes)}
        labels = np.array([number[name] for name in self.labels[side]], dtype=np.int64)
        return Pictures(self.fillers[side].shelf(), labels, self.names[side])


def known(recipe: Recipe, start: Model | None, source: ImageSource) -> tuple[Processor | None, int]:
    """(how pictures are made, None where the first one decides; their channels)."""
    given = recipe.model.get("image_size")
    if start is not None:
        made = processor_of(start)
        made = made if given is None else made.made_for(both(given, "model.image_size"))
        return made, int(start.net.channels)  # type: ignore[arg-type]
    channels = recipe.model.get("channels", 1 if source.kind == "idx" else 3)
    if channels not in (1, 3):
        raise ConfigError(f"model.channels = {channels}", fix="1 (grey) or 3 (colour)")
    return (None if given is None else of_size(given)), channels


def decided(recipe: Recipe | None, shape: tuple[int, ...]) -> Processor:
    """Small pictures keep the size of the first; larger ones get the size that the family's configuration has."""
    if recipe is None or max(shape[:2]) <= TAKEN:
        return of_size(shape[:2])
    config = recipe.model_config({"labels": ("0", "1")})
    return of_size(getattr(config, "image_size", None) or shape[:2])


def of_size(size: Any) -> Processor:
    height, width = both(size, "model.image_size")
    return Processor(size=Size(height=height, width=width))


def apart(train: Sized, dev: Sized, recipe: Recipe, source: ImageSource) -> None:
    """Raises DataError QKV-032 where one side has no picture."""
    if not len(train) or not len(dev):
        raise DataError(
            f"{len(train) + len(dev)} pictures are too few to hold {recipe.data.holdout:.0%} apart",
            place=source.path,
            fix="give [data.dev], or a larger data.holdout",
            code="QKV-032",
        )


def check(classes: tuple[str, ...], source: ImageSource, sizes: set[tuple[int, int]]) -> None:
    """Raises DataError QKV-032 where there is nothing to tell apart, QKV-038 where a batch would hold several sizes."""
    if len(classes) < 2:
        raise DataError(
            f"all pictures are of one class: {', '.join(classes) or 'none'}",
            place=source.path,
            fix="give the folder whose folders are the classes; pack an archive from inside it (tar -C train -cf train.tar .)",
            code="QKV-032",
        )
    if len(sizes) > 1:
        (h, w), (H, W) = min(sizes), max(sizes)
        raise DataError(
            f"pictures of {len(sizes)} sizes, as {h} × {w} and {H} × {W}: the model's settings do not make them one",
            place=source.path,
            fix="give model.image_size",
            code="QKV-038",
        )
