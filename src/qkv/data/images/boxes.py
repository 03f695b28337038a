"""[objective] of boxes, and noise on pictures that have them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from .decode import Bytes
from .process import BILINEAR, resized

Corners = NDArray[np.float32]
NUMBERS = 7  # random numbers of a picture, whatever is switched on
NARROWEST = 0.01  # of a picture's side: what a crop leaves of a box must be wider to stay one


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """`classes` in the order of their numbers; empty: the categories in the order of their ids.

    0 and false: nothing happens.  A published model comes with sizes of its own."""

    classes: tuple[str, ...] = ()
    shortest: int = 0  # pixels of the shorter edge after resizing; 0: pictures keep their size
    longest: int = 0  # … and the most that the longer may have; 0: no limit
    flip: bool = False  # mirror every other picture, left and right
    scale: float = 1.0  # each picture is made smaller, down to this
    crop: float = (
        0.0  # the share of pictures that are cut; what is left has at least half of each side
    )

    def __post_init__(self) -> None:
        if not 0.1 <= self.scale <= 1:
            raise ConfigError(
                f"scale must be in [0.1, 1] (got {self.scale})", fix="try scale = 0.7"
            )
        if not 0 <= self.crop <= 1:
            raise ConfigError(f"crop must be in [0, 1] (got {self.crop})", fix="try crop = 0.5")
        if min(self.shortest, self.longest) < 0 or 0 < self.longest < self.shortest:
            raise ConfigError(
                f"shortest = {self.shortest}, longest = {self.longest}",
                fix="shortest = 480, longest = 640",
                code="QKV-013",
            )

    def noised(
        self, x: Bytes, corners: Corners, classes: NDArray[np.int64], u: NDArray[np.float64]
    ) -> tuple[Bytes, Corners, NDArray[np.int64]]:
        """A picture (H, W, channels) with boxes as parts of it (n, 4), cut, mirrored and made smaller by u (NUMBERS)."""
        if u[0] < self.crop:
            x, corners, classes = cut(x, corners, classes, u[1:5])
        if self.flip and u[5] < 0.5:
            x = x[:, ::-1]
            corners = np.stack(
                [1 - corners[:, 2], corners[:, 1], 1 - corners[:, 0], corners[:, 3]], 1
            )
        if self.scale < 1:
            by = self.scale + (1 - self.scale) * float(u[6])
            H, W = (max(1, round(n * by)) for n in x.shape[:2])
            x = resized(x, (H, W), BILINEAR)
        return x, corners, classes


def cut(
    x: Bytes, corners: Corners, classes: NDArray[np.int64], u: NDArray[np.float64]
) -> tuple[Bytes, Corners, NDArray[np.int64]]:
    """A window of 1/2 … 1 of each side; boxes are cut with it, and stay where their centre lies in it."""
    sides = [0.5 + 0.5 * float(v) for v in u[:2]]
    H, W = x.shape[:2]
    h, w = (max(1, round(n * s)) for n, s in zip((H, W), sides, strict=True))
    top, left = int(u[2] * (H - h + 1)), int(u[3] * (W - w + 1))
    at = np.array([left, top, left, top], np.float32) / (W, H, W, H)
    size = np.array([w, h, w, h], np.float32) / (W, H, W, H)
    moved = ((corners - at) / size).astype(np.float32)
    middle = (moved[:, :2] + moved[:, 2:]) / 2
    moved = moved.clip(0, 1)
    stay = ((middle > 0) & (middle < 1)).all(1)
    stay &= (moved[:, 2:] - moved[:, :2] > NARROWEST).all(1)
    return x[top : top + h, left : left + w], moved[stay], classes[stay]
