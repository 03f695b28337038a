"""Whatever goes wrong becomes one of our errors: a code, a place, what was seen, what to do."""

import errno
import re
from collections.abc import Sequence

from ..errors import (
    InternalError,
    Interrupted,
    MissingError,
    OutOfMemoryError,
    QkvError,
    StoreError,
    UsageError,
)

WRITE_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
SMALLER = {
    "train": "try train.batch_tokens=1024 train.accumulate=4 (or half of what you have), or a smaller model.d_model",
    "demo": "close other programs, or try `qkv train` with a smaller recipe",
    "translate": "try --batch-tokens 1024 and a smaller --beam",
    "eval": "try --batch-tokens 1024 and a smaller --beam",
}


def as_error(e: BaseException, words: Sequence[str] = ()) -> QkvError:
    """The error to show for any exception; what nobody foresaw is QKV-090."""
    if isinstance(e, QkvError):
        return e
    if isinstance(e, KeyboardInterrupt):
        return Interrupted("stopped by Ctrl-C", fix="the same command starts again")
    if _is_memory(e):
        verb = next((w for w in words if w in SMALLER), "")
        fix = SMALLER.get(verb, "close other programs, or use a smaller model")
        asked = re.search(r"allocate ([\d.]+ ?\w+)", str(e))
        seen = f"could not get {asked[1]} of memory" if asked else "the memory is used up"
        return OutOfMemoryError(seen, fix=fix)
    if isinstance(e, ModuleNotFoundError) and not (e.name or "").startswith("qkv"):
        return MissingError(
            f"package {e.name!r} is not installed", fix=f"pip install {e.name}", code="QKV-022"
        )
    if isinstance(e, OSError):
        return _from_os(e)
    return InternalError(_short(e), fix="run again with --debug and report what it prints")


def _from_os(e: OSError) -> QkvError:
    place, why = e.filename or "", e.strerror or _short(e)
    if e.errno in WRITE_FAILED:
        return StoreError(
            why, place=place, fix="free some space or write elsewhere", code="QKV-061"
        )
    if isinstance(e, PermissionError):
        return StoreError(why, place=place, fix="check who owns it", code="QKV-061")
    if isinstance(e, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return MissingError(why, place=place, fix="check the path")
    if e.errno == errno.ENAMETOOLONG:
        return UsageError("a name is too long", fix="check the path")
    return InternalError(_short(e), place=place, fix="run again with --debug")


def _is_memory(e: BaseException) -> bool:
    if isinstance(e, MemoryError):
        return True
    if type(e).__name__ == "OutOfMemoryError":  # torch's own, without importing torch to ask
        return True
    text = str(e)
    return isinstance(e, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text
    )


def _short(e: BaseException) -> str:
    first = str(e).strip().split("\n")[0][:300]
    return f"{type(e).__name__}: {first}" if first else type(e).__name__
