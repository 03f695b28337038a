"""Boxes in pictures: read, held, noised, measured by average precision."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.images.boxes import NUMBERS, DetectConfig
from ..data.images.coco import Boxed, read_boxes
from ..data.images.process import Processor, Size
from ..data.images.shelf import Filler, Rounds, Shelf, in_order, mean_and_std
from ..data.images.sources import ImageSource, composed
from ..data.objectives.base import Draw
from ..data.report import SkipReport, counted
from ..detect import Found, best_of
from ..errors import DataError, named
from ..learn.boxes import cardinality, detection_terms
from ..learn.loop import Validate
from ..learn.precision import Scene, average_precision
from ..messages import t
from ..model import Model
from ..pictures import processor_of
from ..recipe import Recipe
from ..shapes import Batch
from .images import OfPictures, picture_batch
from .pairs import held_out
from .reading import apart

NOISE = 40  # purpose of random numbers; augment.py has a smaller one, shapes.py a larger
NO_PIXELS = np.zeros((0, 0, 0), np.uint8)


@dataclass(frozen=True)
class Scenes:
    """Pictures with their boxes, corners (n, 4) as parts of the picture, and the sizes (height, width) they came in."""

    shelf: Shelf
    corners: list[NDArray[np.float32]]
    classes: list[NDArray[np.int64]]
    sizes: list[tuple[int, int]]
    names: list[str]

    def __len__(self) -> int:
        return len(self.shelf)


@dataclass(frozen=True)
class SceneStream:
    """Batch number `step` of endless training: a pure function of (pictures, rows, seed, step)."""

    scenes: Scenes
    processor: Processor
    noise: DetectConfig
    rounds: Rounds
    seed: int

    @property
    def batches_per_epoch(self) -> int:
        return self.rounds.batches_per_epoch

    def batch(self, step: int) -> Batch:
        """Step counts micro-batches from 0."""
        _, index = self.rounds.batch(step)
        u = Draw(self.seed, step, NOISE).uniform(len(index) * NUMBERS).reshape(-1, NUMBERS)
        rows = [
            self.noise.noised(
                self.scenes.shelf[i], self.scenes.corners[i], self.scenes.classes[i], row
            )
            for i, row in zip(index.tolist(), u, strict=True)
        ]
        return scene_batch(self.processor, rows, index)


Row = tuple[Any, NDArray[np.float32], NDArray[np.int64]]


def scene_batch(processor: Processor, rows: Sequence[Row], index: Any) -> Batch:
    """Pictures that are fitted already, padded to the largest below and at the right, with their boxes."""
    pixels, keep = replace(processor, size=None, pad=True)([x for x, _, _ in rows])
    most = max(1, *(len(c) for _, _, c in rows)) if rows else 1
    boxes = np.zeros((len(rows), most, 4), np.float32)
    label = np.full((len(rows), most), -1, np.int64)
    for i, (_, corners, classes) in enumerate(rows):
        n = len(classes)
        boxes[i, :n] = centred(corners)
        label[i, :n] = classes
    batch = picture_batch(pixels, label, index)
    kept = None if keep.all() else torch.from_numpy(keep)
    return replace(batch, boxes=torch.from_numpy(boxes), pixel_keep=kept)


def centred(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """x0, y0, x1, y1 -> centre x, y, width, height: (n, 4) -> (n, 4)."""
    low, high = corners[:, :2], corners[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], 1)


def evaluation(scenes: Scenes, processor: Processor, rows: int) -> Iterator[Batch]:
    """Every picture once, in order, without noise; a batch has pictures of one size, so that none is padded."""
    for index in in_order(len(scenes), rows):
        sizes: dict[tuple[int, ...], list[int]] = {}
        held = {i: scenes.shelf[i] for i in index.tolist()}
        for i, x in held.items():
            sizes.setdefault(x.shape, []).append(i)
        for chosen in sizes.values():
            given = [(held[i], scenes.corners[i], scenes.classes[i]) for i in chosen]
            yield scene_batch(processor, given, np.array(chosen))


@dataclass
class DetectJob(OfPictures):
    """Decoded pictures with boxes, what the model's pictures look like, and what was skipped."""

    recipe: Recipe
    train: Scenes
    dev: Scenes
    config: DetectConfig
    processor: Processor
    report: SkipReport
    dev_report: SkipReport
    leak: int
    written: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, recipe: Recipe, start: Model | None = None) -> "DetectJob":
        report, dev_report = SkipReport(), SkipReport()
        config: DetectConfig = recipe.objective_config()
        source, other = recipe.data.train, recipe.data.dev
        given = recipe.model.get("channels", 3) if start is None else start.net.channels
        channels = int(given)  # type: ignore[arg-type]
        processor = (
            chosen(config) if start is None or start.processor is None else sized(start, config)
        )
        names, boxed = read_boxes(source, report, tuple(map(composed, config.classes)), channels)
        reader = Reader(processor, channels)
        reader.read(boxed, 0.0 if other is not None else recipe.data.holdout)
        if other is not None:
            reader.read(read_boxes(other, dev_report, names, channels)[1], 1.0)
        train, dev = reader.scenes(0), reader.scenes(1)
        apart(train, dev, recipe, source)
        check_categories(train, names, source, report)
        if other is not None:
            check_categories(dev, names, other, dev_report)
        if start is None:
            mean, std = mean_and_std(train.shelf, 512)
            processor = replace(processor, mean=mean, std=std)
        leak = len(reader.keys[0] & reader.keys[1])
        config = replace(config, classes=names)
        return cls(recipe, train, dev, config, processor, report, dev_report, leak)

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train), len(self.dev)

    @property
    def settings(self) -> dict[str, Any]:
        """What the data decides of [model]: the labels and how many channels a picture has."""
        return {"labels": self.config.classes, "channels": self.train.shelf.channels}

    def remarks(self, config: Any) -> Sequence[str]:
        """Are there pictures with more boxes than the model has queries?"""
        queries, counts = config.queries, [len(classes) for classes in self.train.classes]
        above, most = sum(n > queries for n in counts), max(counts)
        if not above:
            return ()
        name = self.train.names[counts.index(most)]
        told = t(
            f"{above:,} pictures have more boxes than the model's {queries} queries, each of which finds one: {name} has {most}; "
            f"model.queries = {most + 4} finds all",
            f"그림 {above:,}장에 상자가 모델의 질의 {queries}개보다 많습니다(질의 하나가 상자 하나를 찾음): {name}에 {most}개. "
            f"model.queries = {most + 4}이면 모두 찾습니다",
        )
        return (told,)

    def stream(self) -> SceneStream:
        rows, seed = self.recipe.train.batch_rows, self.recipe.seed
        rounds = Rounds(len(self.train), rows, seed)
        return SceneStream(self.train, self.processor, self.config, rounds, seed)

    def samples(self) -> list[dict[str, Any]]:
        return self.written

    def validation(self, model: Model) -> Validate:
        """Loss of the last layer, its parts, and average precision, over all of dev."""

        def measured(net: torch.nn.Module, step: int) -> dict[str, float]:
            metrics, answers = measure(net, self.dev, self.processor, len(self.config.classes))
            self.written = self.shown(answers[:5])
            return {f"dev/{name}": value for name, value in metrics.items()}

        return measured

    def shown(self, answers: Sequence[Scene]) -> list[dict[str, Any]]:
        """Some pictures of dev: what is there, and what the model is surer of than 0.5."""
        names, made = self.config.classes, []
        for i, scene in enumerate(answers):
            there = zip(scene.classes.tolist(), scene.corners.round(1).tolist(), strict=True)
            said = zip(scene.named, scene.scores, scene.said.round(1).tolist(), strict=True)
            made.append(
                {
                    "picture": self.dev.names[i],
                    "reference": [[names[c], box] for c, box in there],
                    "boxes": [
                        [names[int(c)], round(float(p), 3), b] for c, p, b in said if p > 0.5
                    ],
                }
            )
        return made


@torch.inference_mode()
def measure(
    net: Any, scenes: Scenes, processor: Processor, n_classes: int, rows: int = 16
) -> tuple[dict[str, float], list[Scene]]:
    """({"loss", its parts, "miscount", "map", "map50", "map75"}, what was said of every picture)."""
    device = next(net.parameters()).device
    total: dict[str, float] = {}
    count: dict[str, float] = {}
    answers: list[Scene | None] = [None] * len(scenes)
    wrong = 0.0
    for batch in evaluation(scenes, processor, rows):
        batch = batch.to(device)
        made = net.loss_inputs(batch)
        last = replace(made, logits=made.logits[-1:], boxes=made.boxes[-1:])
        for term in detection_terms(last):
            total[term.name] = total.get(term.name, 0.0) + float(term.total)
            count[term.name] = count.get(term.name, 0.0) + term.count(batch)
        wrong += float(cardinality(made.logits[-1], made.labels).sum())
        for i, scene in _scenes(scenes, batch, best_of(made.logits[-1], made.boxes[-1])):
            answers[i] = scene
    parts = {f"loss/{name}": total[name] / (count[name] or 1.0) for name in total}
    said = [s for s in answers if s is not None]
    found_ = {"miscount": wrong / max(1, len(scenes))} | average_precision(said, n_classes)
    return {"loss": sum(parts.values()), **parts, **found_}, said


def _scenes(scenes: Scenes, batch: Batch, said: Found) -> Iterator[tuple[int, Scene]]:
    """Answers and boxes in pixels of the pictures as they came."""
    index = [] if batch.index is None else batch.index.tolist()
    for row, i in enumerate(index):
        H, W = scenes.sizes[i]
        scale = np.array([W, H, W, H], np.float64)
        yield (
            i,
            Scene(
                (H, W),
                scenes.corners[i] * scale,
                scenes.classes[i],
                said.corners[row].double().cpu().numpy() * scale,
                said.classes[row].cpu().numpy(),
                said.scores[row].double().cpu().numpy(),
            ),
        )


def measure_file(model: Model, source: ImageSource | str | Path) -> dict[str, Any]:
    """Average precision and loss on other pictures with boxes: {"examples", "skipped", "places", "scores"}.

    Classes are the model's; boxes of others are counted as "unknown category"."""
    if not isinstance(source, ImageSource):
        source = ImageSource(path=str(source))
    report, labels = SkipReport(), tuple(model.config.labels)
    processor, channels = processor_of(model), int(model.net.channels)  # type: ignore[arg-type]
    reader = Reader(processor, channels)
    reader.read(read_boxes(source, report, labels, channels)[1], 1.0)
    scenes = reader.scenes(1)
    check_categories(scenes, labels, source, report)
    scores, _ = measure(model.net, scenes, processor, len(labels))
    return {"examples": len(scenes), **report.left_out(), "scores": scores}


def check_categories(
    scenes: Scenes, names: tuple[str, ...], source: ImageSource, report: SkipReport
) -> None:
    """Raises DataError QKV-032 where there are boxes, and not one of these classes."""
    if report.skipped["unknown category"] and not any(map(len, scenes.classes)):
        raise DataError(
            f"not one box of {', '.join(names[:5])} ({counted(report.skipped)})",
            place=source.path,
            fix="name the categories as the classes are: objective.classes, or the model's labels",
            code="QKV-032",
        )


# -- reading -----------------------------------------------------------------------------------------------


def chosen(config: DetectConfig) -> Processor:
    """How pictures are made where no model says it: their size as asked for, mean and deviation measured."""
    size = None
    if config.shortest:
        longest = config.longest or None
        size = Size(shortest_edge=config.shortest, longest_edge=longest or 16 * config.shortest)
    return Processor(kind="DetrImageProcessor", size=size, mean=None, std=None, pad=True)


def sized(start: Model, config: DetectConfig) -> Processor:
    """A model's own, with the size that is asked for."""
    made = processor_of(start)
    return replace(made, size=chosen(config).size) if config.shortest else made


class Reader:
    """Boxed pictures -> two sides, train (0) and dev (1)."""

    def __init__(self, processor: Processor, channels: int) -> None:
        fit = processor.fitted
        self.fillers = (Filler(fit, channels), Filler(fit, channels))
        self.rows: tuple[list[Boxed], list[Boxed]] = ([], [])
        self.keys: tuple[set[bytes], set[bytes]] = (set(), set())
        self.shapes: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])

    def read(self, boxed: Iterable[Boxed], dev: float) -> None:
        """`dev`: the share that goes to the dev side, by a hash of the pixels, so that no picture is on both."""
        for b in boxed:
            key = blake2b(b.pixels.tobytes(), digest_size=16)
            side = int(dev == 1.0 or (dev > 0 and held_out(key.hexdigest(), dev)))
            with named(b.place):
                self.fillers[side].add(b.pixels, b.blob)
            self.keys[side].add(key.digest())
            self.shapes[side].append((b.pixels.shape[0], b.pixels.shape[1]))
            self.rows[side].append(b._replace(pixels=NO_PIXELS))  # the shelf has them

    def scenes(self, side: int) -> Scenes:
        shapes, rows = self.shapes[side], self.rows[side]
        parts = [
            (b.corners / np.array([W, H, W, H])).astype(np.float32)
            for b, (H, W) in zip(rows, shapes, strict=True)
        ]
        names = [b.name if b.blob is not None else b.place for b in rows]
        return Scenes(self.fillers[side].shelf(), parts, [b.classes for b in rows], shapes, names)
