"""Putting a finished temporary in place, and clearing up what a crash leaves beside it.

fresh      mkdir NAME.tmp-<id>, write, fsync … then  tmp -> NAME, fsync parent
replacing                              fsync parent, NAME -> NAME.old-<id>, tmp -> NAME, fsync parent, remove old
A temporary is locked by its writer for as long as it lives, so debris is what nobody holds.
Functions that say so need the caller to hold the parent (`disk.holding`).
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qkv.errors import StoreError
from qkv.weights import disk, manifest

DEBRIS = re.compile(r"(.+)\.(tmp|old|trash)-[0-9a-f]{16}", re.DOTALL)


@contextmanager
def temporary(target: Path, is_folder: bool) -> Iterator[tuple[Path, int]]:
    """A locked temporary beside the target; removed if the body fails.  First clears what earlier crashes left."""
    tmp, fd = beside(target, "tmp"), -1
    try:
        with disk.holding(target.parent):  # so that nobody sweeps it away before it is locked
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            if is_folder:
                recover(target)
                fate(target)  # refuse before the work, not after
            sweep(target)
            if is_folder:
                disk.fs.mkdir(tmp)
                flags = os.O_RDONLY | os.O_DIRECTORY
            fd = disk.fs.open(tmp, flags)
            disk.take(fd)
        yield tmp, fd
    except BaseException:
        discard(tmp)
        raise
    finally:
        if fd >= 0:
            disk.release(fd)


def swap(tmp: Path, folder: Path) -> None:
    """Put tmp in place of the folder; on an error put everything back.  The caller holds the parent."""
    old: Path | None = None
    try:
        if os.path.lexists(folder):
            # else a power cut could bring an earlier `old` back beside this one
            disk.sync_folder(folder.parent)
            old = beside(folder, fate(folder))
            disk.fs.rename(folder, old)
        disk.fs.rename(tmp, folder)
        disk.sync_folder(folder.parent)
    except BaseException:
        with suppress(OSError):
            if not os.path.lexists(tmp):
                disk.fs.rename(folder, tmp)
            if old is not None and os.path.lexists(old):
                disk.fs.rename(old, folder)
        raise
    if old is not None and DEBRIS.fullmatch(old.name):
        discard(old)


def fate(folder: Path) -> str:
    """What becomes of a folder that is replaced: `old` is removed afterwards, `aside` is kept under that name.

    Raises StoreError QKV-061 for a folder without a manifest: it is somebody's own."""
    if not os.path.lexists(folder):
        return "old"
    names = set(os.listdir(folder)) - {manifest.LOCK}
    if names and manifest.MANIFEST not in names:
        seen, fix = "the folder exists and was not written by qkv", "choose another folder"
        raise StoreError(seen, place=folder, fix=fix, code="QKV-061")
    try:
        ours = {manifest.MANIFEST, *manifest.read(folder)["files"]} if names else set()
    except StoreError:
        return "aside"
    return "old" if names <= ours else "aside"


def recover(folder: Path) -> None:
    """Where there is no NAME, put the newest complete one there.  The caller holds the parent."""
    if os.path.lexists(folder):
        return
    for path in debris(folder, "tmp") + debris(folder, "old"):  # a complete tmp is the newer
        with suppress(StoreError):
            if path.is_dir() and is_dead(path) and manifest.check(path, deep=True):
                disk.fs.rename(path, folder)
                disk.sync_folder(folder.parent)
                return


def sweep(target: Path) -> None:
    """Remove the debris of dead writers.  The caller holds the parent."""
    # without a NAME an `old` that does not verify is the last there is: leave it to a person
    kinds = ("tmp", "trash", "old") if os.path.lexists(target) else ("tmp", "trash")
    for path in debris(target, *kinds):
        if is_dead(path):
            discard(path)


def tidy(folder: Path) -> None:
    """Recover and sweep every name in a folder."""
    stems = {m[1] for name in os.listdir(folder) if (m := DEBRIS.fullmatch(name))}
    if stems:
        with disk.holding(folder):
            for stem in sorted(stems):
                recover(folder / stem)
                sweep(folder / stem)


def debris(target: Path, *kinds: str) -> list[Path]:
    with suppress(FileNotFoundError):
        found = ((n, DEBRIS.fullmatch(n)) for n in sorted(os.listdir(target.parent)))
        mine = [n for n, m in found if m and m[1] == target.name and m[2] in kinds]
        return [target.parent / n for n in mine]
    return []


def is_dead(path: Path) -> bool:
    """Nobody holds it: its writer has gone."""
    try:
        fd = disk.fs.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as e:
        return e.errno == errno.ELOOP
    try:
        return disk.take(fd)
    finally:
        disk.release(fd)


def discard(path: Path) -> None:
    """Remove a file, a link or a tree; what cannot be removed stays for the next sweep."""
    with suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            for name in os.listdir(path):
                discard(path / name)
            disk.fs.rmdir(path)
        else:
            disk.fs.unlink(path)


def beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}-{secrets.token_hex(8)}")
