"""One picture file -> (height, width, channels) bytes, by Pillow, distrusting the file.

Only the formats listed are opened.  Size is judged from the header, before anything is unpacked.  Conversions:

    grey, palette, CMYK, YCbCr, LAB, HSV, 1 bit    to RGB, or to grey where one channel is wanted
    16 bit grey                                    v -> v / 257, rounded: 65,535 is white as 255 is
    alpha                                          laid on white, as the published processors do
    several frames or pages                        the first
    EXIF orientation                               applied
"""

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PIXELS = 1 << 26  # of one picture: 8192 × 8192
MOST_PIXELS = (1 << 30) // 12  # what a person may raise that to: Pillow's own limit
MAX_BYTES = 1 << 28  # of one picture file
Bytes = NDArray[np.uint8]  # (H, W, channels)

# why a picture cannot be used -> what to do about it
FIXES = {
    "empty file": "fetch or export the picture again",
    "not a picture": f"save it as one of {', '.join(FORMATS)}",
    "damaged picture": "fetch or export the picture again",
    "empty picture": "give a picture of at least 1 × 1",
    "too many pixels": f"make it smaller: at most {MAX_PIXELS:,} pixels are read",
    "too many bytes": f"make it smaller: at most {MAX_BYTES:,} bytes are read",
    "unknown kind of pixel": "save it with 8 or 16 bits a channel",
}


class Unusable(Exception):
    """A picture that cannot be used: `reason` is a key of FIXES, `seen` says more."""

    def __init__(self, reason: str, seen: str = "") -> None:
        super().__init__(seen or reason)
        self.reason, self.seen = reason, seen or reason

    def error(self, place: object) -> DataError:
        """The same about one picture that a person gave."""
        code = "QKV-037" if self.reason.startswith("too many") else "QKV-038"
        return DataError(self.seen, place=place, fix=FIXES[self.reason], code=code)


def decode(raw: bytes, channels: int = 3, most: int = MAX_PIXELS) -> Bytes:
    """(H, W, channels) of a picture file's bytes; channels is 3 (RGB) or 1 (grey).  Raises Unusable."""
    if not raw:
        raise Unusable("empty file")
    if len(raw) > MAX_BYTES:
        raise Unusable("too many bytes", f"{len(raw):,} bytes")
    from PIL import Image, UnidentifiedImageError

    def opened() -> Bytes:
        try:
            image = Image.open(io.BytesIO(raw), formats=FORMATS)
        except UnidentifiedImageError:
            begins = (Image.OPEN[kind][1] for kind in FORMATS)
            if any(like is not None and like(raw[:16]) for like in begins):
                raise Unusable("damaged picture", "its header cannot be read") from None
            raise
        with image:
            return whole(image, channels, most)

    return guarded(opened, f"begins with {raw[:8]!r}: no format that is read")


def from_image(image: Any, channels: int, most: int = MAX_PIXELS) -> Bytes:
    """(H, W, channels) of a PIL image that somebody opened, and Pillow may not have read yet.  Raises Unusable."""
    return guarded(lambda: whole(image, channels, most))


def whole(image: Any, channels: int, most: int) -> Bytes:
    check_size(image.size, most)
    image.load()
    return converted(upright(image), channels)


def guarded(make: Callable[[], Bytes], unknown: str = "no format that is read") -> Bytes:
    """make(), its complaints as Unusable; `unknown` says that no format was recognised."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # odd metadata
            return make()
    except (Unusable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unusable("not a picture", unknown) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise Unusable("too many pixels", str(e).partition(",")[0]) from None
    except Exception as e:  # a damaged file makes the decoders raise anything
        raise Unusable("damaged picture", f"cannot be decoded: {str(e)[:120]}") from None


def check_size(size: tuple[int, int], most: int) -> None:
    """Raises Unusable for a picture of no pixels, or of more than `most`."""
    width, height = size
    if width < 1 or height < 1:
        raise Unusable("empty picture", f"{width} × {height} pixels")
    if width * height > most:
        raise Unusable("too many pixels", f"{width:,} × {height:,} pixels, the limit is {most:,}")


def upright(image: Any) -> Any:
    """The picture as its EXIF orientation says; as it is where that cannot be read."""
    from PIL import ImageOps

    with suppress(Exception):  # orientation is a hint, and its bytes are as foreign as the rest
        return ImageOps.exif_transpose(image)
    return image


def converted(image: Any, channels: int) -> Bytes:
    """(H, W, channels) of a Pillow image in any mode.  Raises Unusable for numbers that are no colours."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray(_narrowed(np.asarray(image)))
    elif image.mode == "F":
        raise Unusable("unknown kind of pixel", "pixels are floating point numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    made = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return made.reshape(*made.shape[:2], channels)


def _narrowed(x: NDArray[Any]) -> Bytes:
    """16 bit -> 8 bit.  Raises Unusable for whole numbers beyond 16 bit."""
    if x.size and (x.min() < 0 or x.max() > 65535):
        raise Unusable("unknown kind of pixel", f"grey values from {x.min()} to {x.max()}")
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)


def from_numbers(x: Any, channels: int, place: object) -> Bytes:
    """(H, W, channels) of an array or tensor: (H, W), (H, W, c) or (c, H, W) with c = 1, 3, 4; uint8, or floats in 0 … 1.

    Alpha is laid on white; three channels become grey by ITU-R 601-2 luma, as Pillow's "L" does.  Raises DataError."""
    if hasattr(x, "detach"):  # a tensor; numpy has no bfloat16
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() else x).numpy()
    a = np.asarray(x)
    if a.ndim == 3 and a.shape[-1] not in (1, 3, 4) and a.shape[0] in (1, 3, 4):
        a = np.moveaxis(a, 0, -1)
    if a.ndim not in (2, 3) or (a.ndim == 3 and a.shape[-1] not in (1, 3, 4)) or not a.size:
        raise DataError(
            f"an array of shape {a.shape} is no picture",
            place=place,
            fix="give (H, W), (H, W, c) or (c, H, W) with 1, 3 or 4 channels",
            code="QKV-038",
        )
    if np.issubdtype(a.dtype, np.floating):
        if not np.isfinite(a).all() or a.min() < 0 or a.max() > 1:
            raise DataError(
                f"floating point pixels from {a.min():.3g} to {a.max():.3g}",
                place=place,
                fix="give bytes, or numbers in 0 … 1; normalising is the model's own work",
                code="QKV-038",
            )
        a = np.rint(a * 255).astype(np.uint8)
    if a.dtype == np.bool_:
        a = a.astype(np.uint8) * 255
    if a.dtype != np.uint8:
        raise DataError(
            f"pixels of type {a.dtype}",
            place=place,
            fix="give bytes (uint8), or floating point numbers in 0 … 1",
            code="QKV-038",
        )
    from PIL import Image

    flat = np.ascontiguousarray(a[..., 0] if a.ndim == 3 and a.shape[-1] == 1 else a)
    return converted(Image.fromarray(flat), channels)
