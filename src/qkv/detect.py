"""Ask a model where things are in pictures: boxes with labels.  One in, one out; list in, list out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import DataError, UsageError, named
from .learn.boxes import corners
from .model import Model
from .pictures import batches, made, of_pixels, pictures_of, processor_of, typed
from .pictures import read as read_picture
from .readings import Detection, Detections

if TYPE_CHECKING:
    from .look.pictures import Overlay


@dataclass(frozen=True)
class Found:
    """What a net says of B pictures: the best class of each query that is not "nothing", and its box."""

    scores: Tensor  # (B, N) in 0 … 1
    classes: Tensor  # (B, N) int64
    corners: Tensor  # (B, N, 4): x0, y0, x1, y1 as parts of the picture


def best_of(logits: Tensor, boxes: Tensor) -> Found:
    """The definition of every answer: class probabilities without the last, their largest; corners.

    logits (B, N, K + 1), boxes (B, N, 4)."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    best = logits.to(exact).softmax(-1)[..., :-1].max(-1)
    return Found(best.values, best.indices, corners(boxes.to(exact)))


def check(model: Model) -> None:
    """Raises UsageError for a model that finds no boxes."""
    if not hasattr(model.net, "found") or getattr(model.config, "head", "boxes") != "boxes":
        raise UsageError(
            f"detect needs a model that finds boxes; this one is {model.family}",
            fix='train one: [model] family = "detr", [objective] kind = "detect"',
        )


@torch.inference_mode()
def detect(model: Model, given: Any, threshold: float = 0.5) -> Any:
    """Every query that is surer than `threshold` of its class, surest first.  One -> Detections, several -> list.

    Raises UsageError for a model that finds no boxes, or a threshold outside 0 … 1; DataError as `Model.classify`."""
    check(model)
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold = {threshold}", fix="give a probability, 0 … 1")
    from .read import sound

    one, asked = pictures_of(given)
    names, pixels, sizes = prepared(model, asked)
    answers: list[Detections | None] = [None] * len(names)
    for chosen, batch in batches(pixels, model.device):
        with named(names[chosen[0]]):
            said = best_of(*model.net.found(typed(model, batch)))  # type: ignore[operator]
        sound(said.scores), sound(said.corners)
        for row, i in enumerate(chosen):
            answers[i] = _answer(model, names[i], sizes[i], said, row, threshold)
    return answers[0] if one else answers


def prepared(
    model: Model, asked: Sequence[Any]
) -> tuple[list[str], list[Tensor], list[tuple[int, int]]]:
    """(names, pixels as the net reads them, (height, width) of the pictures themselves)."""
    processor_of(model)  # before a picture is blamed for what the model lacks
    channels = int(model.net.channels)  # type: ignore[arg-type]
    read = [read_picture(x, channels, i) for i, x in enumerate(asked)]
    pixels = []
    for name, x in read:
        try:
            pixels += made(model, [x])[1]
        except DataError as e:
            e.place = name  # not that of a list of one
            raise
    return [name for name, _ in read], pixels, [(x.shape[0], x.shape[1]) for _, x in read]


def _answer(
    model: Model, name: str, size: tuple[int, int], said: Found, row: int, threshold: float
) -> Detections:
    H, W = size
    scale = said.corners.new_tensor([W, H, W, H])
    kept = said.scores[row] > threshold
    order = said.scores[row][kept].argsort(descending=True, stable=True)
    parts = (said.classes[row], said.scores[row], said.corners[row] * scale)
    classes, scores, boxes = (x[kept][order].tolist() for x in parts)
    names = model.config.labels
    things = tuple(
        Detection(names[c], s, (b[0], b[1], b[2], b[3]))
        for c, s, b in zip(classes, scores, boxes, strict=True)
    )
    return Detections(name, W, H, things)


# -- where its queries looked ------------------------------------------------------------------------------


@torch.inference_mode()
def overlay(model: Model, picture: Any, threshold: float = 0.5) -> "tuple[Detections, Overlay]":
    """(what was found, the maps of the queries that found it laid over the picture).

    Of every thing the mean over the heads of each decoder layer, the heads of the last one, and the mean of all layers.
    Where nothing is surer than the threshold, the surest query is shown."""
    from .look.pictures import Overlay, Thing
    from .look.record import record

    answer: Detections = detect(model, picture, threshold)
    (name,), (x,), (size,) = prepared(model, [picture])
    net: Any = model.net
    batch = typed(model, of_pixels(x[None]).to(model.device))
    with record(net) as maps:
        cells = net.cells(batch)
        logits, boxes = net.headed()(net.layers(cells)[-1])
    said = best_of(logits, boxes)
    layers = [maps[f"decoder.blocks.{i}.cross"][0] for i in range(len(net.decoder.each))]
    seen = torch.stack(layers).float().cpu()
    seen = seen.view(*seen.shape[:3], *cells.size)  # (L, H, N, S) -> (L, H, N, height, width)
    kept = (said.scores[0] > threshold).nonzero()[:, 0].tolist() or [int(said.scores[0].argmax())]
    order = sorted(kept, key=lambda n: -float(said.scores[0, n]))
    scale = said.corners.new_tensor([size[1], size[0], size[1], size[0]])
    things = []
    for n in order:
        label = f"{model.config.labels[int(said.classes[0, n])]} {float(said.scores[0, n]):.2f}"
        x0, y0, x1, y1 = (said.corners[0, n] * scale).tolist()
        things.append(Thing(label, _maps_of(seen[:, :, n]), (x0, y0, x1, y1)))
    _, pixels = read_picture(picture, int(net.channels))
    return answer, Overlay(pixels, things, name)


def _maps_of(seen: Tensor) -> dict[str, Any]:
    """Names and maps of one query: (L, H, height, width)."""
    made = {f"layer {i + 1}": m.mean(0).numpy() for i, m in enumerate(seen)}
    made |= {f"layer {len(seen)}, head {h + 1}": m.numpy() for h, m in enumerate(seen[-1])}
    return made | {"mean of all": seen.mean((0, 1)).numpy()}
