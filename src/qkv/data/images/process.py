"""From bytes to what a model reads: resize, centre crop, rescale, normalise, pad.

    y = (x · factor - mean) / std          x (H, W, channels) uint8 -> y (channels, H', W') float32

Equal to transformers' ViT-, DeiT- and DetrImageProcessor on Pillow, bit for bit: resizing is Pillow's on bytes, the product
is made in float64, the rest in float32.  As a byte has 256 values, all after resizing is a table of (256, channels)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from .decode import Bytes

Floats = NDArray[np.float32]
Pair = tuple[int, int]
NEAREST, LANCZOS, BILINEAR, BICUBIC, BOX, HAMMING = range(6)  # Pillow's numbers
HALF = (0.5, 0.5, 0.5)
MAX_SIDE = 1 << 14  # pixels of one side after resizing
Kind = Literal["ViTImageProcessor", "DeiTImageProcessor", "DetrImageProcessor"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A rule for sizes: exact (height, width); the shorter edge, perhaps with a limit on the longer; or within a frame."""

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    max_height: int | None = None
    max_width: int | None = None

    def __post_init__(self) -> None:
        given = self.to_dict()
        known = (
            {"height", "width"},
            {"shortest_edge"},
            {"shortest_edge", "longest_edge"},
            {"max_height", "max_width"},
        )
        if set(given) not in known:
            raise ConfigError(
                f"size {given} is no rule for sizes",
                fix="height and width; shortest_edge, with or without longest_edge; or max_height and max_width",
                code="QKV-013",
            )
        if not all(type(n) is int and 1 <= n <= MAX_SIDE for n in given.values()):
            raise ConfigError(f"size {given}", fix=f"whole numbers from 1 to {MAX_SIDE:,}")

    def to_dict(self) -> dict[str, int]:
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: n for name, n in held.items() if n is not None}

    @property
    def exact(self) -> Pair | None:
        return None if self.height is None or self.width is None else (self.height, self.width)

    def of(self, height: int, width: int) -> Pair:
        """(height, width) after resizing.  Raises DataError QKV-038 where a side would be 0 or beyond MAX_SIDE."""
        made = self.exact or self._scaled(height, width)
        if not 1 <= min(made) <= max(made) <= MAX_SIDE:
            raise DataError(
                f"a picture of {height} × {width} pixels would become {made[0]} × {made[1]}",
                fix="it is too narrow for this model: cut or pad it first",
                code="QKV-038",
            )
        return made

    def _scaled(self, h: int, w: int) -> Pair:
        if self.max_height is not None and self.max_width is not None:
            scale = min(self.max_height / h, self.max_width / w)
            return int(h * scale), int(w * scale)
        edge = short = self.shortest_edge or 0
        exact: float = short
        if self.longest_edge is not None:  # Carion et al. 2020: their code rounds so
            low, high = float(min(h, w)), float(max(h, w))
            if high / low * short > self.longest_edge:
                exact = self.longest_edge * low / high
                edge = round(exact)
            if edge == min(h, w):
                return h, w
        return (int(exact * h / w), edge) if w < h else (edge, int(exact * w / h))


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What happens to a picture before the net sees it; None: that step is left out."""

    kind: Kind = "ViTImageProcessor"
    size: Size | None = None
    resample: int = BILINEAR
    crop: Pair | None = None  # height, width about the centre; a smaller picture is set in black
    factor: float | None = 1 / 255
    mean: tuple[float, ...] | None = HALF
    std: tuple[float, ...] | None = HALF
    pad: bool = False  # pictures of a batch to the largest height and width, below and at the right
    pad_size: Pair | None = None  # … or to this
    convert_rgb: bool = False  # noted in the file; colours are converted in any case

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ConfigError(
                f"image_mean {self.mean} and image_std {self.std} do not fit together",
                fix="give one number of each for every channel",
                code="QKV-013",
            )
        if self.mean is not None and len(self.mean) not in (1, 3):
            raise ConfigError(
                f"{len(self.mean)} channels", fix="pictures here have 1 or 3", code="QKV-013"
            )
        if not all(np.isfinite(x) and x > 0 for x in self.std or ()):
            raise ConfigError(f"image_std {self.std}", fix="give finite numbers above 0")
        if self.resample not in range(6):
            raise ConfigError(f"resample = {self.resample}", fix="0 … 5, as Pillow numbers them")

    @property
    def output(self) -> Pair | None:
        """The (height, width) of every picture, where all have one."""
        return self.crop or (None if self.size is None else self.size.exact)

    def made_for(self, size: Pair) -> "Processor":
        """The same for pictures of this (height, width) in the end; what is cropped away keeps its share."""
        if self.crop is None:
            return replace(self, size=Size(height=size[0], width=size[1]))
        if self.size is None:
            return replace(self, crop=size)
        ratio = {"height": size[0] / self.crop[0], "width": size[1] / self.crop[1]}
        held = {
            name: round(n * ratio.get(name, max(ratio.values())))
            for name, n in self.size.to_dict().items()
        }
        return replace(self, size=Size(**held), crop=size)

    def fitted(self, x: Bytes) -> Bytes:
        """Resized and cropped: (H, W, channels) -> (H', W', channels), still bytes."""
        if self.size is not None:
            x = resized(x, self.size.of(*x.shape[:2]), self.resample)
        return x if self.crop is None else cropped(x, self.crop)

    def table(self, channels: int) -> Floats:
        """(256, channels): what each byte becomes.  Raises DataError where the settings are for another number of channels."""
        made = np.arange(256, dtype=np.float64)[:, None].repeat(channels, 1)
        out = (made * (1.0 if self.factor is None else self.factor)).astype(np.float32)
        if self.mean is None or self.std is None:
            return out
        if len(self.mean) != channels:
            raise DataError(
                f"a picture of {channels} channels, the model's mean has {len(self.mean)}",
                fix="set image_mean and image_std in preprocessor_config.json",
                code="QKV-038",
            )
        mean, std = (np.array(v, dtype=np.float32) for v in (self.mean, self.std))
        return (out - mean) / std

    def numbers(self, x: Bytes) -> Floats:
        """(…, H, W, channels) bytes -> (…, channels, H, W)."""
        table = self.table(x.shape[-1])
        planes = [table[:, c].take(x[..., c]) for c in range(x.shape[-1])]
        return np.stack(planes, axis=-3)

    def __call__(self, pictures: Sequence[Bytes]) -> tuple[Floats, NDArray[np.bool_]]:
        """pixels (B, channels, H, W) and pixel_keep (B, H, W), False where a picture was padded.

        Raises DataError QKV-038 where pictures differ in size and are not padded."""
        made = [self.numbers(self.fitted(x)) for x in pictures]
        sizes = [x.shape[-2:] for x in made]
        H, W = max(h for h, _ in sizes), max(w for _, w in sizes)
        if self.pad and self.pad_size is not None:
            if H > self.pad_size[0] or W > self.pad_size[1]:
                raise DataError(
                    f"a picture of {H} × {W} pixels is larger than pad_size {self.pad_size}",
                    fix="make the picture smaller",
                    code="QKV-038",
                )
            H, W = self.pad_size
        if not self.pad and len(set(sizes)) > 1:
            raise DataError(
                f"pictures of {len(set(sizes))} sizes, as {sizes[0]} and {max(sizes)}",
                fix="give them one by one, or set do_resize or do_pad in preprocessor_config.json",
                code="QKV-038",
            )
        pixels = np.zeros((len(made), made[0].shape[0], H, W), dtype=np.float32)
        keep = np.zeros((len(made), H, W), dtype=bool)
        for i, (x, (h, w)) in enumerate(zip(made, sizes, strict=True)):
            pixels[i, :, :h, :w] = x
            keep[i, :h, :w] = True
        return pixels, keep


def resized(x: Bytes, size: Pair, resample: int) -> Bytes:
    """(H, W, channels) -> (*size, channels), by Pillow."""
    from PIL import Image

    flat = np.ascontiguousarray(x[..., 0] if x.shape[-1] == 1 else x)
    image = Image.fromarray(flat).resize((size[1], size[0]), Image.Resampling(resample))
    return np.asarray(image).reshape(*size, x.shape[-1])


def cropped(x: Bytes, size: Pair) -> Bytes:
    """The middle; a picture smaller than that stands in the middle of black."""
    for axis in (0, 1):
        have, want = x.shape[axis], size[axis]
        if have < want:
            front = ceil((want - have) / 2)
            pads = [(0, 0)] * 3
            pads[axis] = (front, want - have - front)
            x = np.pad(x, pads)
        else:
            front = (have - want) // 2
            x = x[front : front + want] if axis == 0 else x[:, front : front + want]
    return x
