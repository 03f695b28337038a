"""Pictures at hand while a model learns, and which of them make batch number `step`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ..batches import Index, permutation
from .decode import MOST_PIXELS, Bytes, decode
from .sources import Blob

ROOM = (
    2 << 30
)  # bytes of decoded pictures that are held; beyond it each is decoded anew when its turn comes


@dataclass(frozen=True)
class Shelf:
    """N pictures as bytes after `fit`: held decoded as long as there is room, then only where to find them.

    shelf[i] is (H, W, channels).  `whole` (N, H, W, channels): where all are held and of one size."""

    held: Sequence[Bytes]
    blobs: Sequence[Blob]  # of the pictures from len(held) on
    fit: Callable[[Bytes], Bytes]
    channels: int
    whole: Bytes | None = None

    def __len__(self) -> int:
        return len(self.held) + len(self.blobs)

    def __getitem__(self, i: int) -> Bytes:
        if i < len(self.held):
            return self.held[i]
        raw = self.blobs[i - len(self.held)].read()
        return self.fit(decode(raw, self.channels, MOST_PIXELS))  # judged when it was read

    def stack(self, index: Index) -> Bytes:
        """(B, H, W, channels) of pictures of one size."""
        if self.whole is not None:
            return self.whole[index]
        return np.stack([self[i] for i in index.tolist()])


class Filler:
    """Puts pictures on a shelf one by one."""

    def __init__(self, fit: Callable[[Bytes], Bytes], channels: int, room: int = ROOM) -> None:
        self.fit, self.channels, self.room = fit, channels, room
        self.held: list[Bytes] = []
        self.blobs: list[Blob] = []

    def add(self, pixels: Bytes, blob: Blob | None) -> None:
        """blob None: there is no way to find it again, so it is held."""
        made = self.fit(pixels)
        self.room -= made.nbytes
        if blob is not None and (self.room < 0 or self.blobs):
            self.blobs.append(blob)
        else:
            self.held.append(np.ascontiguousarray(made))

    def shelf(self) -> Shelf:
        whole = None
        if not self.blobs and len({x.shape for x in self.held}) == 1:
            whole = np.empty((len(self.held), *self.held[0].shape), self.held[0].dtype)
            for i, x in enumerate(whole):  # one by one: nothing is held twice
                x[...] = self.held[i]
                self.held[i] = x
        return Shelf(self.held, self.blobs, self.fit, self.channels, whole)


class Rounds:
    """Which examples make batch number `step`: each once an epoch, in an order of its own; the last batch may be smaller."""

    def __init__(self, n: int, rows: int, seed: int) -> None:
        if n < 1 or rows < 1:
            raise ConfigError(
                f"{rows} of {n} pictures make no batch", fix="try train.batch_rows=64"
            )
        self.n, self.rows, self.seed = n, rows, seed
        self.batches_per_epoch = -(-n // rows)
        self._cached: tuple[int, Index] = (-1, np.empty(0, np.int64))

    def batch(self, step: int) -> tuple[int, Index]:
        """(epoch, example numbers) of a step counted from 0."""
        epoch, at = divmod(step, self.batches_per_epoch)
        if self._cached[0] != epoch:
            self._cached = epoch, permutation(self.n, self.seed, epoch)
        return epoch, self._cached[1][at * self.rows : (at + 1) * self.rows]


def in_order(n: int, rows: int) -> Iterator[Index]:
    """Every example once, for evaluations."""
    for at in range(0, n, rows):
        yield np.arange(at, min(at + rows, n))


def mean_and_std(shelf: Shelf, most: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel in 0 … 1, to four digits, over at most `most` pictures spread evenly over the shelf."""
    chosen: NDArray[np.int64] = np.unique(
        np.linspace(0, len(shelf) - 1, min(most, len(shelf))).astype(np.int64)
    )
    total = np.zeros((2, shelf.channels))
    pixels = 0
    for i in chosen.tolist():
        x = shelf[i].reshape(-1, shelf.channels).astype(np.float64) / 255
        total += (x.sum(0), np.square(x).sum(0))
        pixels += len(x)
    mean = total[0] / pixels
    std = np.sqrt(np.maximum(total[1] / pixels - mean**2, 0))
    return _digits(mean), _digits(np.maximum(std, 1e-3))


def _digits(x: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in x)
