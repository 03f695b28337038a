"""The operations of RandAugment (Cubuk et al. 2020, section 3.1) by Pillow, each of a strength in -1 … 1.

Their largest strengths are those of AutoAugment (Cubuk et al. 2019, table 6)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from .decode import Bytes

Op = Callable[[Any, float], Any]
AFFINE, NEAREST = Image.Transform.AFFINE, Image.Resampling.NEAREST


def _moved(image: Any, a: float, b: float, c: float, d: float, e: float, f: float) -> Any:
    """Pixel (x, y) becomes that at (ax + by + c, dx + ey + f)."""
    return image.transform(image.size, AFFINE, (a, b, c, d, e, f), NEAREST)


def _enhanced(kind: Any) -> Op:
    return lambda image, v: kind(image).enhance(1 + 0.9 * v)


OPS: dict[str, Op] = {
    "identity": lambda image, v: image,
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "rotate": lambda image, v: image.rotate(30 * v, NEAREST),
    "solarize": lambda image, v: ImageOps.solarize(image, round(256 * (1 - abs(v)))),
    "posterize": lambda image, v: ImageOps.posterize(image, 8 - round(4 * abs(v))),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": lambda image, v: _moved(image, 1, 0.3 * v, 0, 0, 1, 0),
    "shear_y": lambda image, v: _moved(image, 1, 0, 0, 0.3 * v, 1, 0),
    "translate_x": lambda image, v: _moved(image, 1, 0, 0.45 * v * image.size[0], 0, 1, 0),
    "translate_y": lambda image, v: _moved(image, 1, 0, 0, 0, 1, 0.45 * v * image.size[1]),
}
NAMES = tuple(OPS)


def randaugment(x: Bytes, u: NDArray[np.float64], magnitude: float) -> Bytes:
    """(H, W, channels) after len(u) / 2 operations: u holds which one, and its sign, of each in turn."""
    image = Image.fromarray(np.ascontiguousarray(x[..., 0] if x.shape[-1] == 1 else x))
    for which, sign in u.reshape(-1, 2).tolist():
        strength = magnitude / 30 * (1 if sign < 0.5 else -1)
        image = OPS[NAMES[int(which * len(NAMES))]](image, strength)
    return np.asarray(image).reshape(x.shape)
