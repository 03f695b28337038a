"""What an encoder of pictures looks at: any layer, head and query, and attention rollout, laid over the picture."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .errors import UsageError, named
from .look.record import record
from .look.views import Array, rollout
from .messages import t
from .model import Model
from .models.pictures import PictureEncoder
from .parts.patches import PatchConfig
from .pictures import of_pixels, processor_of, read, typed
from .readings import Classified

if TYPE_CHECKING:
    from .look.pictures import Bytes, Overlay

SHOWN = 224  # pixels that a small picture is enlarged to, so that its maps can be seen
FIELD = 1 << 19  # numbers of all maps of a page


@dataclass(frozen=True, eq=False)
class Gaze:
    """One picture as the net read it, and every map of that pass: (H, S, S) of each layer, first layer first.

    The first `firsts` tokens stand for no place, the others for the cells of `grid` (rows, columns), row by row.
    `asked`: the tokens that the answer is read from (the first; of two heads the first two; the mean: all)."""

    name: str
    picture: "Bytes"
    maps: tuple[Array, ...]
    grid: tuple[int, int]
    firsts: int
    asked: tuple[int, ...]
    answer: Classified | None = None

    def map(
        self, layer: int = -1, head: int | None = None, query: tuple[int, int] | None = None
    ) -> Array:
        """Where a query looks, (rows, columns): one head, or the mean of all; the patch at (row, column), or what the
        answer is read from.  Raises UsageError for a layer, head or patch that is not there."""
        if not -len(self.maps) <= layer < len(self.maps):
            raise UsageError(
                f"layer {layer} of {len(self.maps)}", fix="count from 0, or back from -1"
            )
        heads = self.maps[layer]
        if head is not None and not -len(heads) <= head < len(heads):
            raise UsageError(f"head {head} of {len(heads)}", fix="count from 0, or back from -1")
        one = heads.mean(0) if head is None else heads[head]
        return self.of(one, query)

    def rollout(self, query: tuple[int, int] | None = None) -> Array:
        """Where what a query holds after the last layer comes from, (rows, columns): Abnar & Zuidema 2020."""
        return self.of(self.rolled(), query)

    def rolled(self) -> Array:
        """Attention followed through all layers, (S, S)."""
        return rollout({f"encoder.blocks.{n}.attn": m for n, m in enumerate(self.maps)})

    def of(self, weights: Array, query: tuple[int, int] | None) -> Array:
        """(S, S) -> the places (rows, columns) that a query's row looks at."""
        if query is None:
            return places(weights[list(self.asked)].mean(0), self.firsts, self.grid)
        (i, j), (rows, columns) = query, self.grid
        if not (0 <= i < rows and 0 <= j < columns):
            raise UsageError(f"patch {query} of {rows} x {columns}", fix="row and column from 0")
        return places(weights[self.firsts + i * columns + j], self.firsts, self.grid)

    def fields(self) -> dict[str, Array]:
        """{name: (cells, cells)}: where every cell looks in each layer and head (the means alone where that is too much
        for a page), and its rollout."""
        cells = (self.grid[0] * self.grid[1]) ** 2
        if cells > FIELD:
            return {}
        every = {t("rollout", "롤아웃"): self.rolled()}
        for n, heads in enumerate(self.maps):
            layer = t(f"layer {n + 1}", f"층 {n + 1}")
            every[layer] = heads.mean(0)
            if cells * len(self.maps) * (1 + len(heads)) <= FIELD:
                head = t("head", "헤드")
                every |= {f"{layer} {head} {h + 1}": m for h, m in enumerate(heads)}
        return {name: m[self.firsts :, self.firsts :] for name, m in every.items()}

    def overlay(self, query: tuple[int, int] | None = None) -> "Overlay":
        """The picture with its rollout, and of each layer the heads and their mean, of one query."""
        from .look.pictures import Overlay, Thing

        things = [Thing(t("rollout", "롤아웃"), {t("mean", "평균"): self.rollout(query)}, None)]
        for n, heads in enumerate(self.maps):
            word = t("head", "헤드")
            made = {f"{word} {h + 1}": self.map(n, h, query) for h in range(len(heads))}
            made[t("mean", "평균")] = self.map(n, None, query)
            things.append(Thing(t(f"layer {n + 1}", f"층 {n + 1}"), made))
        said = "" if self.answer is None else f": {self.answer.label} {self.answer.score:.2f}"
        label = f"{self.name}{said}"
        whole = enlarged(self.picture)
        return Overlay(whole, things, label, self.fields(), self.grid, heat=True)


def places(row: Array, firsts: int, grid: tuple[int, int]) -> Array:
    """A row over all tokens -> (rows, columns), those that stand for no place of the picture left out."""
    made: Array = row[firsts:].reshape(grid)
    return made


def enlarged(picture: "Bytes") -> "Bytes":
    """Small pictures with every pixel a square of pixels."""
    by = max(1, SHOWN // max(picture.shape[:2]))
    return picture.repeat(by, 0).repeat(by, 1)


@torch.inference_mode()
def gaze(model: Model, picture: Any) -> Gaze:
    """Read a picture (a path, PIL image, array or tensor) once and keep what was looked at.

    Raises UsageError for a model that is no encoder of pictures, and as `Model.classify` for the picture."""
    net = model.net
    if not isinstance(net, PictureEncoder):
        raise UsageError(f"this {model.family} is no encoder of pictures", fix="choose a vit")
    processor = processor_of(model)
    name, x = read(picture, net.channels)
    with named(name), record(net) as maps:
        fitted = processor.fitted(x)
        pixels = torch.from_numpy(processor.numbers(fitted))[None]
        net.encode(typed(model, of_pixels(pixels).to(model.device)))
    kind = net.head.kind
    rows, columns = net.grid(fitted.shape[0], fitted.shape[1])
    asked = {"mean": range(rows * columns + net.firsts)}.get(net.pool, range(1))
    return Gaze(
        name,
        covered(fitted, net.embed.config, (rows, columns)),
        tuple(m[0].double().cpu().numpy() for m in maps.values()),
        (rows, columns),
        net.firsts,
        tuple(range(2) if kind == "distilled" else asked),
        None if kind == "none" else model.classify(picture),
    )


def covered(picture: "Bytes", config: Any, grid: tuple[int, int]) -> "Bytes":
    """The part of a picture that its patches are cut from."""
    if not isinstance(config, PatchConfig):
        return picture
    h, w = config.patch
    return np.ascontiguousarray(picture[: grid[0] * h, : grid[1] * w])
