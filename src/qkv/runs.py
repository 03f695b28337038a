"""The runs of a folder: what `qkv runs` lists, and what it may throw away."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .config import read_toml
from .errors import DataError, MissingError, StoreError
from .learn.track import Status
from .weights import store


@dataclass(frozen=True)
class RunInfo:
    """One line of `qkv runs`."""

    folder: Path
    name: str
    state: str
    step: int
    of: int
    best: float | None
    metric: str
    bytes: int
    updated: float

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def runs(root: str | Path = "runs") -> list[RunInfo]:
    """The runs under a folder, newest first; a folder that cannot be read is listed as damaged."""
    if not Path(root).is_dir():
        return []
    found = []
    for config in Path(root).glob("*/config.toml"):
        folder = config.parent
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        try:
            status = Status.read(folder)
            metric = read_toml(config).get("train", {}).get("metric", "dev/loss")
        except (StoreError, MissingError, DataError):
            status, metric = None, ""
        found.append(
            RunInfo(
                folder=folder,
                name=folder.name,
                state=_state(status),
                step=status.step if status else 0,
                of=status.of if status else 0,
                best=status.best if status else None,
                metric=metric,
                bytes=size,
                updated=config.stat().st_mtime if status is None else status.updated,
            )
        )
    return sorted(found, key=lambda r: r.updated, reverse=True)


def _state(status: Status | None) -> str:
    """What status.json says, unless the process that wrote it is gone."""
    if status is None:
        return "unknown"
    if status.state == "running":
        try:
            os.kill(status.pid, 0)
        except ProcessLookupError:
            return "killed"
        except PermissionError:
            pass
    return status.state


def slim(folder: str | Path) -> int:
    """Delete what only a resume needs; returns the bytes freed.

    Raises BusyError while the run is training, MissingError QKV-021 where its only weights would go."""
    folder, freed = Path(folder), 0
    if not (folder / "config.toml").is_file():
        raise MissingError(f"no run at {folder}", fix="see: qkv runs", code="QKV-021")
    if not any((folder / name / "config.json").is_file() for name in ("best", "last")):
        raise MissingError(
            f"{folder} has no model yet, and what a resume needs is all there is of it",
            fix=f"go on with it: qkv train {folder}; or delete the folder",
            code="QKV-021",
        )
    with store.lock(folder):
        for name in ("resume", "snapshots"):
            path = folder / name
            freed += sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
            for part in sorted(path.glob("step-*")) if name == "snapshots" else [path]:
                if part.is_dir():
                    store.remove_folder(part)
    return freed
