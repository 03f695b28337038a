"""The operations of RandAugment (Cubuk et al. 2020, section 3.1), each of a strength in -1 … 1.

Their largest strengths are those of AutoAugment (Cubuk et al. 2019, table 6).  What only changes each byte is a table of
256 here; ImageOps and ImageEnhance, which build theirs in Python, are the definition they equal."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .decode import Bytes

Op = Callable[[Bytes, float], Bytes]  # (H, W, channels) -> the same
AFFINE, NEAREST = Image.Transform.AFFINE, Image.Resampling.NEAREST
RAMP = np.arange(256)


def image_of(x: Bytes) -> Any:
    return Image.fromarray(np.ascontiguousarray(x[..., 0] if x.shape[-1] == 1 else x))


def moved(x: Bytes, a: float, b: float, c: float, d: float, e: float, f: float) -> Bytes:
    """Pixel (x, y) becomes that at (ax + by + c, dx + ey + f); black comes in."""
    image = image_of(x)
    return np.asarray(image.transform(image.size, AFFINE, (a, b, c, d, e, f), NEAREST)).reshape(
        x.shape
    )


def rotated(x: Bytes, v: float) -> Bytes:
    return np.asarray(image_of(x).rotate(30 * v, NEAREST)).reshape(x.shape)


def blended(x: Bytes, other: Any, v: float) -> Bytes:
    """other + (1 + 0.9 v) · (x - other), of bytes, as ImageEnhance has it; other (H, W, channels) or what broadcasts to it."""
    base = np.broadcast_to(np.asarray(other, dtype=np.float32), x.shape)
    made = base + np.float32(1 + 0.9 * v) * (x.astype(np.float32) - base)
    return np.clip(made, 0, 255).astype(np.uint8)


def grey(x: Bytes) -> Bytes:
    """(H, W, 1): ITU-R 601-2 luma."""
    return x if x.shape[-1] == 1 else np.asarray(image_of(x).convert("L"))[..., None]


def contrast(x: Bytes, v: float) -> Bytes:
    return blended(x, int(grey(x).mean() + 0.5), v)


def sharpness(x: Bytes, v: float) -> Bytes:
    smooth = np.asarray(image_of(x).filter(ImageFilter.SMOOTH)).reshape(x.shape)
    return blended(x, smooth, v)


def autocontrast(x: Bytes, v: float) -> Bytes:
    """Every channel stretched to 0 … 255; one of a single value stays."""
    out = x.copy()
    for c in range(x.shape[-1]):
        low, high = int(x[..., c].min()), int(x[..., c].max())
        if high > low:
            scale = 255.0 / (high - low)
            table = np.clip((RAMP * scale - low * scale).astype(np.int64), 0, 255)
            out[..., c] = table.astype(np.uint8)[x[..., c]]
    return out


def equalize(x: Bytes, v: float) -> Bytes:
    """Every channel with the flattest histogram that a table can give."""
    out = x.copy()
    for c in range(x.shape[-1]):
        counts = np.bincount(x[..., c].ravel(), minlength=256)
        there = counts[counts > 0]
        step = (int(counts.sum()) - int(there[-1])) // 255
        if len(there) > 1 and step:
            table = (step // 2 + np.concatenate([[0], counts.cumsum()[:-1]])) // step
            out[..., c] = np.clip(table, 0, 255).astype(np.uint8)[x[..., c]]
    return out


def solarize(x: Bytes, v: float) -> Bytes:
    """Bytes from a threshold on are turned over."""
    return np.where(x < round(256 * (1 - abs(v))), x, 255 - x).astype(np.uint8)


def posterize(x: Bytes, v: float) -> Bytes:
    """The upper bits alone."""
    return x & np.uint8(256 - (1 << round(4 * abs(v))))


OPS: dict[str, Op] = {
    "identity": lambda x, v: x,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": rotated,
    "solarize": solarize,
    "posterize": posterize,
    "color": lambda x, v: blended(x, grey(x), v) if x.shape[-1] == 3 else x,
    "contrast": contrast,
    "brightness": lambda x, v: blended(x, 0, v),
    "sharpness": sharpness,
    "shear_x": lambda x, v: moved(x, 1, 0.3 * v, 0, 0, 1, 0),
    "shear_y": lambda x, v: moved(x, 1, 0, 0, 0.3 * v, 1, 0),
    "translate_x": lambda x, v: moved(x, 1, 0, 0.45 * v * x.shape[1], 0, 1, 0),
    "translate_y": lambda x, v: moved(x, 1, 0, 0, 0, 1, 0.45 * v * x.shape[0]),
}
NAMES = tuple(OPS)


def randaugment(x: Bytes, u: NDArray[np.float64], magnitude: float) -> Bytes:
    """(H, W, channels) after len(u) / 2 operations: u holds which one, and its sign, of each in turn."""
    for which, sign in u.reshape(-1, 2).tolist():
        strength = magnitude / 30 * (1 if sign < 0.5 else -1)
        x = OPS[NAMES[int(which * len(NAMES))]](x, strength)
    return x
