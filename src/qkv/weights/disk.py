"""The operating system as the store sees it: one small object, so that tests can replace it with a faulty one.

Use it as `disk.fs.rename(...)`; nothing else of qkv writes to a disk."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qkv.errors import BusyError, StoreError

PATIENCE = 30.0  # seconds to wait for another process that is between two renames


class FS:
    """Every call that changes a disk, or decides whether to.  Each may raise OSError; `write` may be short."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def flock(self, fd: int) -> None:
        """Lock or raise BlockingIOError at once; the kernel unlocks when the last copy of fd is closed."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def free(self, folder: Path) -> int:
        """Bytes that this user may still write."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize


fs = FS()
_held: set[int] = set()  # descriptors that carry a lock


def _forget_locks() -> None:
    """A forked worker must not keep its dead parent's locks alive."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_locks)


def take(fd: int) -> bool:
    """Try to lock a descriptor until `release`; a file system without locks counts as free."""
    _held.add(fd)
    try:
        fs.flock(fd)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS):
            raise
    return True


def release(fd: int) -> None:
    """Unlock and close; in a forked child both have happened already."""
    if fd in _held:
        _held.discard(fd)
        fs.close(fd)


@contextmanager
def holding(parent: Path) -> Iterator[None]:
    """Be the only one who renames in this folder; held for moments only.  Raises BusyError QKV-062."""
    fd = fs.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + PATIENCE
        while not take(fd):
            if time.monotonic() > deadline:
                seen = f"locked by another program for {PATIENCE:.0f} s"
                raise BusyError(seen, place=parent, fix="try again")
            time.sleep(0.01)
        yield
    finally:
        release(fd)


def write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        done = fs.write(fd, rest)
        if done <= 0:
            raise OSError(errno.EIO, "nothing was written")
        rest = rest[done:]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    fd = fs.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fs.fsync(fd)
    finally:
        fs.close(fd)


def make_parents(folder: Path) -> None:
    if not folder.is_dir():
        make_parents(folder.parent)
        with suppress(FileExistsError):
            fs.mkdir(folder)
        sync_folder(folder.parent)


@contextmanager
def failing(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn the system's refusal into StoreError QKV-061 with the figures."""
    try:
        yield
    except OSError as e:
        free = "unknown"
        with suppress(OSError):
            free = f"{fs.free(next(p for p in path.parents if p.is_dir())):,} bytes"
        fix = {
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some of your quota",
            errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
            errno.ENOENT: "check the path",
        }.get(e.errno or 0, "choose a place that can be written")
        # a temporary's name says nothing to the reader; a missing file to copy does
        place = path if ".tmp-" in str(e.filename) else e.filename or path
        raise StoreError(
            f"{e.strerror or e} (needed {needed:,} bytes, free {free})",
            place=place,
            fix=f"{fix}; everything saved before is intact",
            code="QKV-061",
        ) from e
