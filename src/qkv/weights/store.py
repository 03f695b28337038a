"""Every durable write of the program: folders, files, appended lines and locks that outlive a kill or a power cut.

write_folder · recover · verify · remove_folder · fresh_folder     whole folders, with a manifest
write_file · append · append_line · truncate                       single files
lock · open_inside                                                 one writer; reading without leaving the folder
"""

import errno
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qkv.errors import BusyError, MissingError, StoreError
from qkv.weights import disk, manifest, place
from qkv.weights.manifest import LOCK as LOCK
from qkv.weights.manifest import MANIFEST as MANIFEST
from qkv.weights.manifest import open_inside as open_inside

CHUNK = 1 << 20

Content = bytes | Iterable[bytes] | Path


def write_folder(folder: str | Path, files: Mapping[str, Content]) -> None:
    """Put a folder with exactly these files in place, durably; a kill at any moment leaves the old one or this one.

    A content is bytes, an iterable of bytes, or the path of a file to copy.  A folder that qkv did not write is never
    replaced; one that was, but holds foreign or damaged files, is moved to `NAME.aside-<id>` rather than removed.
    Raises StoreError QKV-061 (nothing older is lost, the temporary is gone), BusyError QKV-062."""
    folder = _real(folder)
    for name in (folder.name, *files):
        manifest.check_name(name, folder)
    sizes = [_size(content) for content in files.values()]
    needed = sum(s or 0 for s in sizes)
    with disk.failing(folder, needed):
        disk.make_parents(folder.parent)
        if None not in sizes and disk.fs.free(folder.parent) < needed * 1.2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        with place.temporary(folder, is_folder=True) as (tmp, fd):
            entries = {n: _write_new(tmp / n, _chunks(c)) for n, c in sorted(files.items())}
            _write_new(tmp / MANIFEST, [manifest.to_bytes(entries)])
            disk.fs.fsync(fd)
            with disk.holding(folder.parent):
                place.swap(tmp, folder)


def recover(folder: str | Path) -> Path:
    """Where a crash left no NAME, put the newest complete one there.  Returns the real path; writes nothing when NAME exists."""
    folder = _real(folder)
    _settled(folder)
    return folder


def verify(folder: str | Path, deep: bool = True) -> dict[str, Any]:
    """The manifest of a folder whose every file is the one that was written (deep=False: by name and size only).

    Raises MissingError QKV-020, StoreError QKV-060 naming the file and what differs, QKV-063 if a newer qkv wrote it."""
    folder = _real(folder)
    while True:
        before = _settled(folder)
        if before is None:
            raise MissingError("no such folder", place=folder, fix="check the path")
        try:
            return manifest.check(folder, deep)
        except StoreError:
            # a training run may have replaced the folder while we read it: then look at the new one
            if _settled(folder) == before:
                raise


def remove_folder(folder: str | Path) -> None:
    """Remove a folder so that a crash leaves all of it or none: rename to `NAME.trash-<id>`, fsync, then unlink."""
    folder = _real(folder)
    with disk.failing(folder), disk.holding(folder.parent):
        trash = place.beside(folder, "trash")
        disk.fs.rename(folder, trash)
        disk.sync_folder(folder.parent)
        place.discard(trash)


def fresh_folder(parent: str | Path, stem: str) -> Path:
    """Make `<stem>-<n>` with the first n after those that exist; two racing processes get two folders."""
    parent = _real(parent)
    manifest.check_name(f"{stem}-1", parent)
    with disk.failing(parent):
        disk.make_parents(parent)
        pattern = re.compile(re.escape(stem) + r"-([0-9]{1,9})", re.DOTALL)
        taken = [int(m[1]) for name in os.listdir(parent) if (m := pattern.fullmatch(name))]
        n = max(taken, default=0) + 1
        while True:
            with suppress(FileExistsError):
                disk.fs.mkdir(parent / f"{stem}-{n}")
                disk.sync_folder(parent)
                return parent / f"{stem}-{n}"
            n += 1


def write_file(path: str | Path, data: bytes) -> None:
    """Replace or make one file, atomically and durably.  Raises StoreError QKV-061; then the content is the old or the new one."""
    path = _real(path)
    manifest.check_name(path.name, path)
    with disk.failing(path, len(data)):
        disk.make_parents(path.parent)
        with place.temporary(path, is_folder=False) as (tmp, fd):
            disk.write_all(fd, data)
            disk.fs.fsync(fd)
            disk.fs.rename(tmp, path)
        disk.sync_folder(path.parent)


def append(path: str | Path, data: bytes, sync: bool = False) -> int:
    """Add bytes to the end in one write and return the new size; sync=True makes all so far outlive a power cut.

    A write that fails half-way is taken back, so a log never ends in half a line.  Raises StoreError QKV-061."""
    path = _real(path)
    with disk.failing(path, len(data)):
        fd = disk.fs.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            size = os.fstat(fd).st_size
            try:
                disk.write_all(fd, data)
            except OSError:
                disk.fs.truncate(fd, size)
                raise
            if sync:
                disk.fs.fsync(fd)
                disk.sync_folder(path.parent)  # the file may be new
            return size + len(data)
        finally:
            disk.fs.close(fd)


def append_line(path: str | Path, line: str, sync: bool = False) -> int:
    """Append one line of text; a line feed inside it would make two records of one, so it is refused."""
    if "\n" in line:
        raise StoreError(
            "a line must not contain a line feed", place=path, fix="escape it", code="QKV-061"
        )
    return append(path, line.encode() + b"\n", sync)


def truncate(path: str | Path, size: int) -> None:
    """Cut a log back to the size a checkpoint recorded.  Raises StoreError QKV-060 if it is shorter than that."""
    path = _real(path)
    with disk.failing(path):
        fd = disk.fs.open(path, os.O_WRONLY)
        try:
            now = os.fstat(fd).st_size
            if now < size:
                seen = f"holds {now:,} bytes, the checkpoint was written at {size:,}"
                raise StoreError(seen, place=path, fix="restore the file, or start a new run")
            disk.fs.truncate(fd, size)
            disk.fs.fsync(fd)
        finally:
            disk.fs.close(fd)


@contextmanager
def lock(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process alone, and clear what a dead predecessor left in it.

    The kernel frees the lock of a dead holder.  Raises BusyError QKV-062 at once, naming the living one."""
    folder = _real(folder)
    with disk.failing(folder):
        fd = disk.fs.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        with disk.failing(folder):
            mine = disk.take(fd)
        if not mine:
            who = os.pread(fd, 500, 0).decode(errors="replace").strip() or "another process"
            fix = "wait for it, stop it, or start a new run"
            raise BusyError(f"held by {who}", place=folder, fix=fix)
        with disk.failing(folder):
            disk.fs.truncate(fd, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            who = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
            disk.write_all(fd, who.encode())
            place.tidy(folder)
        try:
            yield
        finally:
            with suppress(OSError):
                disk.fs.truncate(fd, 0)  # a finished folder does not say who made it
    finally:
        disk.release(fd)


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(path))


def _settled(folder: Path) -> tuple[int, int] | None:
    """Which folder is in place, once nobody is between two renames; None if there is none."""
    found = _identity(folder)
    if found is None and folder.parent.is_dir():
        with disk.failing(folder), disk.holding(folder.parent):
            place.recover(folder)
            found = _identity(folder)
    return found


def _identity(folder: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(folder)
        return found.st_ino, found.st_mtime_ns  # a number alone is used again
    return None


def _size(content: Content) -> int | None:
    if isinstance(content, Path):
        return content.stat().st_size if content.exists() else None
    if isinstance(content, bytes | bytearray | memoryview):
        return len(content)
    return getattr(content, "nbytes", None)  # files.File knows beforehand


def _chunks(content: Content) -> Iterator[bytes]:
    if isinstance(content, Path):
        with content.open("rb") as f:
            while chunk := f.read(CHUNK):
                yield chunk
    elif isinstance(content, bytes | bytearray | memoryview):
        yield bytes(content)
    else:
        yield from content


def _write_new(path: Path, chunks: Iterable[bytes]) -> dict[str, Any]:
    """Write and fsync a file that does not exist yet; its manifest entry."""
    digest, size = hashlib.sha256(), 0
    fd = disk.fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
    try:
        for chunk in chunks:
            disk.write_all(fd, chunk)
            digest.update(chunk)
            size += len(chunk)
        disk.fs.fsync(fd)
    finally:
        disk.fs.close(fd)
    return {"size": size, "sha256": digest.hexdigest()}
