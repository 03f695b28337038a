"""Classes of whole pictures: read, held, noised, measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..checkpoints import load
from ..data.images.augment import Augment, uniform
from ..data.images.config import ImageClassifyConfig
from ..data.images.process import Processor
from ..data.images.shelf import Rounds, in_order, mean_and_std
from ..data.images.sources import ImageSource
from ..data.report import SkipReport
from ..errors import DataError
from ..learn import scores
from ..learn.loop import Validate
from ..model import Model
from ..pictures import processor_of
from ..readings import Habits
from ..recipe import Recipe
from ..shapes import Batch
from .reading import Pictures, Reader, apart, check, known
from .teacher import Teacher


class PictureStream:
    """Batch number `step` of endless training: a pure function of (pictures, rows, seed, step).

    From step `plain` on pictures are as they are.  smoothing: of the labels of mixed pictures."""

    def __init__(
        self,
        pictures: Pictures,
        processor: Processor,
        config: ImageClassifyConfig,
        rows: int,
        seed: int,
        teacher: Teacher | None = None,
        *,
        plain: int,
        smoothing: float,
    ) -> None:
        self.pictures, self.processor, self.config = pictures, processor, config
        self.teacher, self.plain, self.smoothing = teacher, plain, smoothing
        self.rounds, self.seed = Rounds(len(pictures), rows, seed), seed

    @property
    def batches_per_epoch(self) -> int:
        return self.rounds.batches_per_epoch

    def batch(self, step: int) -> Batch:
        """Step counts micro-batches from 0."""
        _, index = self.rounds.batch(step)
        noise = uniform(self.seed, step, len(index))
        augment = self.config if step < self.plain else Augment()
        x = augment.bytes(self.pictures.shelf.stack(index), noise)
        pixels = augment.numbers(self.processor.numbers(x), noise)
        label = self.pictures.labels[index]
        made = picture_batch(pixels, label, index)
        if augment.mixup:
            made = replace(made, mixed=torch.from_numpy(augment.mixed(self.certain(label), noise)))
        if self.teacher is None:
            return made
        return replace(made, taught=self.teacher(x, augment, noise))

    def certain(self, label: Any) -> Any:
        """The smoothed probability of each class, (B, K), by a label (B)."""
        K = len(self.config.classes)
        return np.eye(K, dtype=np.float32)[label] * (1 - self.smoothing) + self.smoothing / K


def picture_batch(pixels: Any, label: Any = None, index: Any = None) -> Batch:
    """Arrays as a batch without tokens: source and keep (B, 0)."""
    B = len(pixels)

    def tensor(x: Any) -> Any:
        return None if x is None else torch.from_numpy(np.ascontiguousarray(x))

    return Batch(
        torch.zeros(B, 0, dtype=torch.long),
        torch.zeros(B, 0, dtype=torch.bool),
        pixels=tensor(pixels),
        label=tensor(label),
        index=tensor(index),
    )


def evaluation(pictures: Pictures, processor: Processor, rows: int) -> Iterator[Batch]:
    """Every picture once, in order, without noise."""
    for index in in_order(len(pictures), rows):
        pixels = processor.numbers(pictures.shelf.stack(index))
        yield picture_batch(pixels, pictures.labels[index], index)


class OfPictures:
    """What a job has not that reads pictures: texts, their tokens, their habits."""

    tokenizer: None = None
    template: None = None
    habits = Habits()
    longest = 0

    def remarks(self, config: Any) -> Sequence[str]:
        return ()


@dataclass
class ImagesJob(OfPictures):
    """Decoded pictures, what the model's pictures look like, and what was skipped."""

    recipe: Recipe
    train: Pictures
    dev: Pictures
    config: ImageClassifyConfig
    processor: Processor
    report: SkipReport
    dev_report: SkipReport
    leak: int
    teacher: Teacher | None = None
    head: str | None = None
    written: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, recipe: Recipe, start: Model | None = None) -> "ImagesJob":
        report, dev_report = SkipReport(), SkipReport()
        config: ImageClassifyConfig = recipe.objective_config()
        knows = load(config.teacher) if config.teacher else None
        source, other = recipe.data.train, recipe.data.dev
        processor, channels = known(recipe, start, source)
        reader = Reader(recipe, processor, channels, config.classes)
        held = 0.0 if other is not None else recipe.data.holdout
        reader.read(source, report, held)
        if other is not None:
            reader.settle(reader.found())
            reader.read(other, dev_report, 1.0)
        config = replace(config, classes=reader.found())
        check(config.classes, source, reader.sizes)
        train, dev = (reader.pictures(side, config.classes) for side in (0, 1))
        apart(train, dev, recipe, source)
        made = reader.processor
        if made is None:
            raise DataError("no picture was read", place=source.path, fix="check the path")
        if start is None:
            mean, std = mean_and_std(train.shelf)
            made = replace(made, mean=mean, std=std)
        leak = len(reader.keys[0] & reader.keys[1])
        # a checkpoint that ends in states gets a head for classes
        bare = start is not None and getattr(start.config, "head", None) == "none"
        head = "classes" if bare else None
        teacher = None
        if knows is not None:
            channels = train.shelf.channels
            teacher = Teacher.of(knows, config.classes, channels, recipe.train.precision)
        return cls(recipe, train, dev, config, made, report, dev_report, leak, teacher, head)

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train), len(self.dev)

    @property
    def settings(self) -> dict[str, Any]:
        """What the data decides of [model]: the labels and what a picture looks like."""
        height, width = self.train.shelf[0].shape[:2]
        made: dict[str, Any] = {
            "labels": self.config.classes,
            "channels": self.train.shelf.channels,
            "image_size": height if height == width else (height, width),
        }
        return made | ({} if self.head is None else {"head": self.head})

    def stream(self) -> PictureStream:
        train, config = self.recipe.train, self.config
        return PictureStream(
            self.train,
            self.processor,
            config,
            train.batch_rows,
            self.recipe.seed,
            self.teacher,
            plain=round(train.steps * (1 - config.no_augment)) * train.accumulate,
            smoothing=train.smoothing,
        )

    def samples(self) -> list[dict[str, Any]]:
        return self.written

    def validation(self, model: Model) -> Validate:
        """Loss, accuracy and macro-F1 over all of dev."""

        def measured(net: torch.nn.Module, step: int) -> dict[str, float]:
            batches = evaluation(self.dev, self.processor, self.recipe.train.batch_rows)
            found, loss = answers(net, batches)
            right = self.dev.labels.tolist()
            self.written = self.shown(found)
            return {
                "dev/loss": loss,
                "dev/accuracy": scores.accuracy(found, right),
                "dev/f1": scores.macro_f1(found, right),
            }

        return measured

    def shown(self, found: list[int], n: int = 5) -> list[dict[str, Any]]:
        """Some pictures of dev, with what they are and what the model says."""
        key = "source" if self.recipe.data.train.kind == "folder" else "picture"
        names, right = self.config.classes, self.dev.labels.tolist()
        return [
            {key: self.dev.names[i], "reference": names[right[i]], "label": names[found[i]]}
            for i in range(min(n, len(found)))
        ]


@torch.inference_mode()
def answers(net: Any, batches: Iterator[Batch]) -> tuple[list[int], float]:
    """(the class of every picture, the mean of -log p of the right one)."""
    device = next(net.parameters()).device
    found: list[int] = []
    total = 0.0
    for batch in batches:
        logits = net.logits(batch.to(device)).float()
        total += float(F.cross_entropy(logits, batch.label.to(device), reduction="sum"))  # type: ignore[union-attr]
        found += logits.argmax(-1).tolist()
    return found, total / max(1, len(found))


def measure_file(model: Model, source: ImageSource, rows: int = 64) -> dict[str, Any]:
    """Accuracy, macro-F1 and loss on other labelled pictures: {"examples", "skipped", "places", "scores"}.

    Classes are the model's; a picture of another is counted as "unknown label"."""
    processor = processor_of(model)
    report = SkipReport()
    channels: int = model.net.channels  # type: ignore[assignment]
    reader = Reader(None, processor, channels, tuple(model.config.labels))
    reader.read(source, report, 1.0)
    pictures = reader.pictures(1, tuple(model.config.labels))
    if not len(pictures):
        raise DataError(
            f"no picture of the model's classes ({', '.join(model.config.labels[:5])} …)",
            place=source.path,
            fix="name the folders as the model's labels are",
            code="QKV-032",
        )
    rows = 1 if len(reader.sizes) > 1 else rows
    found, loss = answers(model.net, evaluation(pictures, processor, rows))
    right = pictures.labels.tolist()
    return {
        "examples": len(pictures),
        **report.left_out(),
        "scores": {
            "loss": loss,
            "accuracy": scores.accuracy(found, right),
            "f1": scores.macro_f1(found, right),
        },
    }


def measure_pictures(
    model: Model, recipe: Recipe | None, data: str | Path | ImageSource | Any
) -> dict[str, Any]:
    """`measure_file` of anything that `qkv.evaluate` takes; a detector is measured by its boxes."""
    if hasattr(model.net, "found"):
        from . import detect

        return detect.measure_file(
            model, data if isinstance(data, ImageSource) else getattr(data, "path", data)
        )
    if not isinstance(data, ImageSource):
        data = ImageSource(path=getattr(data, "path", None) or str(data))
    return measure_file(model, data, 64 if recipe is None else recipe.train.batch_rows)
