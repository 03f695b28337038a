"""Faulty disks for tests: one that kills, fails or writes short at the k-th operation, one that models a power cut."""

import errno
import os
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from qkv.weights.disk import FS


class Killed(BaseException):
    """SIGKILL: nothing of the program runs after it, so every later operation raises it too."""


class FaultFS(FS):
    """Counts operations; kills before the k-th, or makes it fail with an errno.  Does not really fsync: that is slow."""

    def __init__(
        self, kill_at: int = 0, fail_at: int = 0, error: int = errno.EIO, short: bool = False
    ):
        self.kill_at, self.fail_at, self.error, self.short = kill_at, fail_at, error, short
        self.count, self.dead = 0, False
        self.trace: list[str] = []

    def step(self, name: str, *args: Any) -> None:
        if self.dead:
            raise Killed
        self.count += 1
        self.trace.append(f"{name} {' '.join(str(getattr(a, 'name', a)) for a in args)}")
        if self.count == self.kill_at:
            self.die()
        if self.count == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))

    def die(self) -> None:
        self.dead = True
        raise Killed

    def open(self, path, flags):
        self.step("open", path)
        return super().open(path, flags)

    def write(self, fd, data):
        half = data[: (len(data) + 1) // 2]
        try:
            self.step("write", len(data))
        except (Killed, OSError):
            if self.count in (self.kill_at, self.fail_at):
                super().write(fd, half)  # the worst moment: some of it is there
            raise
        return super().write(fd, half if self.short else data)

    def truncate(self, fd, size):
        self.step("truncate", size)
        super().truncate(fd, size)

    def fsync(self, fd):
        self.step("fsync")

    def flock(self, fd):
        self.step("flock")
        super().flock(fd)

    def rename(self, old, new):
        self.step("rename", old, new)
        super().rename(old, new)

    def unlink(self, path):
        self.step("unlink", path)
        super().unlink(path)

    def mkdir(self, path):
        self.step("mkdir", path)
        super().mkdir(path)

    def rmdir(self, path):
        self.step("rmdir", path)
        super().rmdir(path)

    def free(self, folder):
        self.step("free", folder)
        return super().free(folder)


class RealKillFS(FaultFS):
    """In a forked child: a true SIGKILL."""

    def die(self) -> None:
        os.kill(os.getpid(), 9)


ZEROS = -1.0  # the length of a file is durable before its data is
Entry = tuple[
    int, str, str, int
]  # folder, name that goes ("" for none), name that comes ("" for none), inode


class PowerFS(FaultFS):
    """Remembers what is durable: names after the fsync of their folder, data after the fsync of the file.

    After every operation a snapshot is kept, from which `states` enumerates what a power cut may leave: any subset
    of the pending changes of names (renames are atomic, their order is not promised), and for data that was not
    fsynced none, some or all of it, or zeros in its place."""

    def __init__(self, root: Path):
        super().__init__()
        self.root, self.next = root, 1
        self.now: dict[int, dict[str, int]] = {}
        self.durable: dict[int, dict[str, int]] = {}
        self.pending: list[Entry] = []
        self.data: dict[int, bytes] = {}
        self.synced: dict[int, bytes] = {}
        self.files: dict[int, int] = {}
        self.snapshots: list[Any] = []
        self.scan(root)

    def scan(self, path: Path) -> int:
        inode, self.next = self.next, self.next + 1
        if path.is_dir():
            self.now[inode] = {p.name: self.scan(p) for p in sorted(path.iterdir())}
            self.durable[inode] = dict(self.now[inode])
        else:
            self.data[inode] = self.synced[inode] = path.read_bytes()
        return inode

    def find(self, path: Path) -> int | None:
        inode: int | None = 1
        for part in path.relative_to(self.root).parts:
            inode = self.now[inode].get(part) if inode in self.now else None
        return inode

    def change(self, path: Path, gone: str, come: str, inode: int) -> None:
        folder = self.find(path.parent)
        apply((entry := (folder, gone, come, inode)), self.now)
        self.pending.append(entry)
        self.snap()

    def snap(self) -> None:
        names = {inode: dict(entries) for inode, entries in self.durable.items()}
        self.snapshots.append((names, list(self.pending), dict(self.data), dict(self.synced)))

    def open(self, path, flags):
        fd = super().open(path, flags)
        if self.find(path) is None:
            inode, self.next = self.next, self.next + 1
            self.data[inode], self.synced[inode] = b"", b""
            self.change(path, "", path.name, inode)
        self.files[fd] = self.find(path)
        return fd

    def write(self, fd, data):
        self.data[self.files[fd]] += bytes(data)
        self.snap()
        return super().write(fd, data)

    def fsync(self, fd):
        inode = self.files[fd]
        if inode in self.now:
            for entry in [e for e in self.pending if e[0] == inode]:
                apply(entry, self.durable)
            self.pending = [e for e in self.pending if e[0] != inode]
        else:
            self.synced[inode] = self.data[inode]
        self.snap()

    def rename(self, old, new):
        super().rename(old, new)
        self.change(old, old.name, new.name, self.find(old))

    def unlink(self, path):
        super().unlink(path)
        self.change(path, path.name, "", self.find(path))

    def mkdir(self, path):
        super().mkdir(path)
        inode, self.next = self.next, self.next + 1
        self.now[inode], self.durable[inode] = {}, {}
        self.change(path, "", path.name, inode)

    def rmdir(self, path):
        super().rmdir(path)
        self.change(path, path.name, "", self.find(path))


def apply(entry: Entry, names: dict[int, dict[str, int]]) -> None:
    folder, gone, come, inode = entry
    if gone and names[folder].get(gone) == inode:
        del names[folder][gone]
    if come:
        names[folder][come] = inode


def states(snapshot: Any) -> Iterator[dict[str, Any]]:
    """Every legal tree {name: bytes or tree} after a power cut at this moment."""
    durable, pending, data, synced = snapshot
    chosen = chain.from_iterable(combinations(pending, n) for n in range(len(pending) + 1))
    for subset in chosen:
        names = {inode: dict(entries) for inode, entries in durable.items()}
        for entry in subset:
            apply(entry, names)
        for kept in (0.0, 0.25, 0.5, 0.75, 1.0, ZEROS):
            yield tree(1, names, data, synced, kept)


def tree(inode: int, names: Any, data: Any, synced: Any, kept: float) -> Any:
    if inode in names:
        return {n: tree(i, names, data, synced, kept) for n, i in sorted(names[inode].items())}
    whole, safe = data[inode], synced[inode]
    if kept == ZEROS:
        return safe + bytes(len(whole) - len(safe))
    return whole[: max(len(safe), int(len(whole) * kept))]


def build(state: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    for name, content in state.items():
        if isinstance(content, dict):
            build(content, folder / name)
        else:
            (folder / name).write_bytes(content)
    return folder
