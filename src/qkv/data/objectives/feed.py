"""Examples of an objective -> Batch number `step`, with the face of data/stream.py's Stream."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ..batches import MIX, Order, fixed_batches
from .base import ROW, Draw, Row, Specials, batch_of

if TYPE_CHECKING:
    from ...shapes import Batch

EVALUATION = (
    0  # the seed of noise in evaluations: the same for every run, so that their losses compare
)
MULTIPLE = 16  # of the length of an evaluation's rows, as of those that a model is asked about


class Task(Protocol):
    """Examples of an objective; `config` is what made them, with classes and the like filled in."""

    specials: Specials

    @property
    def config(self) -> Any: ...
    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N, 2): at most how many tokens the source and the target of each example have."""
        ...

    def row(self, i: int, draw: Draw) -> Row:
        """Example i; whatever is random in it comes from `draw`."""
        ...


class Feed:
    """Batch number `step` of endless training: a pure function of (task, budget, seed, step).

    Which examples meet is `Order`'s; the noise of an example is keyed by (seed, epoch, example)."""

    def __init__(self, task: Task, budget: int, seed: int, *, multiple: int = 1) -> None:
        self.task, self.seed, self.multiple = task, seed, multiple
        lengths = task.lengths
        full = int(lengths.max(axis=1).sum()) // max(
            1, budget
        )  # few batches: rather full than mixed
        mix = max(1, min(MIX, full))
        self.order = Order(lengths, budget, seed, multiple=multiple, mix=mix)

    @property
    def batches_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def batch(self, step: int) -> "Batch":
        """Step counts micro-batches from 0."""
        epoch, index = self.order.batch(step)
        rows = [self.task.row(i, Draw(self.seed, epoch, i, ROW)) for i in index.tolist()]
        return batch_of(rows, index, self.task.specials.pad, self.multiple)


def evaluation(task: Task, budget: int) -> Iterator["Batch"]:
    """Every example once, longest first, with the same noise in every run.

    The rows of a batch are of one padded length, as where a model is asked: published BigBird's answers depend on it."""
    width = -(-task.lengths.max(axis=1) // MULTIPLE)
    for index in fixed_batches(task.lengths, budget, multiple=MULTIPLE):
        for part in np.split(index, np.flatnonzero(np.diff(width[index])) + 1):
            rows = [task.row(i, Draw(EVALUATION, 0, i, ROW)) for i in part.tolist()]
            yield batch_of(rows, part, task.specials.pad, MULTIPLE)


def check_room(max_tokens: int, least: int) -> None:
    """Raises ConfigError where the special tokens leave no room for text."""
    if max_tokens < least:
        raise ConfigError(
            f"max_tokens = {max_tokens} leaves no room for text", fix=f"at least {least}"
        )


def share(name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    """Raises ConfigError where a setting is not within [low, high]."""
    if isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} must be from {low} to {high} (got {value!r})", fix="see docs")
