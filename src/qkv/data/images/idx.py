"""The idx format of MNIST and Fashion-MNIST: a big-endian header, then bytes (LeCun, Cortes and Burges 1998)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..lines import chunks

BYTES = 0x08  # the only type of element that pictures and labels have
MAX_TOTAL = 1 << 33  # bytes of one file, unpacked


def read_idx(path: str) -> NDArray[np.uint8]:
    """The array of an idx file, .gz or not.  Raises MissingError QKV-020, DataError QKV-033 and QKV-036.

    The header says how much follows, and no more than that is ever held."""
    held = bytearray()
    shape: tuple[int, ...] | None = None
    for chunk in chunks(path):
        held += chunk
        shape = shape or header(held, path)
        if shape is not None and len(held) > begin(shape) + math.prod(shape):
            raise _wrong(
                path, f"holds more than the {math.prod(shape):,} bytes its header tells of"
            )
    if shape is None:
        raise _wrong(path, f"{len(held)} bytes are too few for an idx file")
    if (there := len(held) - begin(shape)) < math.prod(shape):
        raise _wrong(path, f"is cut off: {there:,} of {math.prod(shape):,} bytes", "QKV-036")
    return np.frombuffer(held, dtype=np.uint8, offset=begin(shape)).reshape(shape)


def begin(shape: tuple[int, ...]) -> int:
    """Where the bytes begin."""
    return 4 + 4 * len(shape)


def header(raw: bytes | bytearray, path: str) -> tuple[int, ...] | None:
    """The sizes of the axes; None where more bytes are needed to tell."""
    if len(raw) < 4:
        return None
    if raw[:2] != b"\0\0" or raw[2] != BYTES or not 1 <= raw[3] <= 3:
        raise _wrong(
            path, f"begins with {raw[:4].hex(' ')}: no idx file of bytes (00 00 08 01 or 03)"
        )
    axes: Any = raw[3]
    if len(raw) < 4 + 4 * axes:
        return None
    shape = tuple(int(n) for n in np.frombuffer(raw, dtype=">u4", count=axes, offset=4))
    if math.prod(shape) > MAX_TOTAL:
        raise _wrong(path, f"tells of {math.prod(shape):,} bytes", "QKV-037")
    return shape


def _wrong(path: str, seen: str, code: str = "QKV-033") -> DataError:
    return DataError(seen, place=path, fix="fetch it again", code=code)
