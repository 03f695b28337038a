"""Noise on pictures while a model learns: a pure function of (seed, step, row) and of the picture's bytes.

    bytes (B, H, W, channels) -> crop -> mirror -> RandAugment -> numbers (B, channels, H, W) -> erase -> mix

Every row takes NUMBERS random numbers, and three for mixing, whatever is switched on, so that no setting changes the noise of
another."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ...errors import ConfigError
from .decode import Bytes

Floats = NDArray[np.float32]
Uniform = NDArray[np.float64]  # (B, NUMBERS + 3) in [0, 1)
AUGMENT = 32  # purpose of random numbers; batches.py and objectives/base.py have the smaller ones
MOST_OPS = 4
NUMBERS = 8 + 2 * MOST_OPS  # crop 2, mirror 1, erase 5, and two for each operation
TRIES_AREA, TRIES_ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)  # Zhong et al. 2017, section 3


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What may happen to a picture; 0 and false: nothing."""

    crop: int = 0  # pixels of black on every side before the size is cut out again (He et al. 2016)
    flip: bool = False  # mirror every other picture, left and right
    randaugment: int = 0  # operations of RandAugment (Cubuk et al. 2020)
    magnitude: float = 9.0  # … their strength, 0 … 30
    erase: float = (
        0.0  # the share of pictures of which a rectangle is set to the mean (Zhong et al. 2017)
    )
    mixup: float = 0.0  # the share of pictures that are mixed with another (Zhang et al. 2018)

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ConfigError(f"crop must be at least 0 (got {self.crop})", fix="try crop = 4")
        if not 0 <= self.randaugment <= MOST_OPS:
            raise ConfigError(
                f"randaugment must be 0 … {MOST_OPS} (got {self.randaugment})", fix="try 2"
            )
        if not 0 <= self.magnitude <= 30:
            raise ConfigError(f"magnitude must be 0 … 30 (got {self.magnitude})", fix="try 9")
        if not 0 <= self.erase <= 1:
            raise ConfigError(f"erase must be in [0, 1] (got {self.erase})", fix="try erase = 0.25")
        if not 0 <= self.mixup <= 1:
            raise ConfigError(f"mixup must be in [0, 1] (got {self.mixup})", fix="try mixup = 0.5")

    def bytes(self, x: Bytes, u: Uniform) -> Bytes:
        """Crop, mirror and RandAugment of (B, H, W, channels)."""
        if self.crop:
            x = shifted(x, self.crop, u[:, 0], u[:, 1])
        if self.flip:
            x = np.where((u[:, 2] < 0.5)[:, None, None, None], x[:, :, ::-1], x)
        if self.randaugment:
            from .ops import randaugment

            n, ops = self.randaugment, u[:, 8:]
            x = np.stack(
                [randaugment(p, r[: 2 * n], self.magnitude) for p, r in zip(x, ops, strict=True)]
            )
        return x

    def numbers(self, x: Floats, u: Uniform) -> Floats:
        """Erasing, in place, and mixing of (B, channels, H, W)."""
        if self.erase:
            for picture, row in zip(x, u[:, 3:8].tolist(), strict=True):
                if row[0] < self.erase:
                    y, x0, h, w = rectangle(picture.shape[1], picture.shape[2], row[1:])
                    picture[:, y : y + h, x0 : x0 + w] = 0.0
        return self.mixed(x, u) if self.mixup else x

    def mixed(self, x: Floats, u: Uniform) -> Floats:
        """λ x + (1 - λ) x', x' another row: of pictures (B, …), and of their labels' probabilities (B, K).

        λ is uniform, Beta(1, 1), in a share `mixup` of the rows and 1 in the others (Zhang et al. 2018, equation 2)."""
        chance, share, order = u[:, NUMBERS:].T
        keep = np.where(chance < self.mixup, share, 1.0).astype(np.float32)
        keep = keep.reshape(-1, *(1,) * (x.ndim - 1))
        return keep * x + (1 - keep) * x[np.argsort(order, kind="stable")]


def uniform(seed: int, step: int, rows: int) -> Uniform:
    """The random numbers of a batch, (rows, NUMBERS + 3)."""
    from ..objectives.base import Draw

    noise = Draw(seed, step, AUGMENT).uniform(rows * NUMBERS).reshape(rows, NUMBERS)
    mixing = Draw(seed, step, AUGMENT, 1).uniform(rows * 3).reshape(rows, 3)
    return np.concatenate([noise, mixing], 1)


def shifted(x: Bytes, pad: int, down: NDArray[np.float64], right: NDArray[np.float64]) -> Bytes:
    """Each picture of (B, H, W, channels) moved by -pad … pad pixels both ways, black coming in; down, right (B) in [0, 1)."""
    B, H, W, _ = x.shape
    wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(wide, (H, W), axis=(1, 2))  # (B, 2p+1, 2p+1, channels, H, W)
    at = [(v * (2 * pad + 1)).astype(np.int64) for v in (down, right)]
    return np.moveaxis(windows[np.arange(B), at[0], at[1]], 1, -1)


def rectangle(height: int, width: int, u: list[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of what is erased: its area is 0.02 … 1/3 of the picture's, its aspect 0.3 … 1/0.3.

    Where the paper draws again until the rectangle fits, it is cut to fit here: one draw a row."""
    low, high = TRIES_AREA
    area = (low + (high - low) * u[0]) * height * width
    low, high = (float(np.log(a)) for a in TRIES_ASPECT)
    aspect = float(np.exp(low + (high - low) * u[1]))
    h = min(max(1, round((area * aspect) ** 0.5)), height)
    w = min(max(1, round((area / aspect) ** 0.5)), width)
    return int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1)), h, w
