"""Is this corpus still what it was, and does the dev set occur in the training set?"""

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from ..errors import DataError
from .images.coco import listed
from .images.sources import ImageSource, files_below
from .lines import open_file
from .records import RecordSource
from .report import Pair
from .sources import PairSource

WHOLE = 64 << 20  # files up to this size are hashed whole, larger ones at both ends
END = 1 << 20
PICTURES = "pictures of "


def fingerprint(path: str) -> dict[str, Any]:
    """Size, time of change and sha256 of a file (of its first and last MiB beyond 64 MiB).  Raises MissingError.

    Of a folder: of every file below it; beyond 64 MiB of their names and sizes alone, with the newest time."""
    if os.path.isdir(path):
        return _of_folder(Path(path))
    with open_file(path) as file:
        stat = os.fstat(file.fileno())
        whole = stat.st_size <= WHOLE
        digest = sha256()
        if whole:
            while chunk := file.read(END):
                digest.update(chunk)
        else:
            digest.update(file.read(END))
            file.seek(-END, os.SEEK_END)
            digest.update(file.read(END))
    return {
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "sha256": digest.hexdigest(),
        "whole": whole,
    }


def _of_folder(root: Path) -> dict[str, Any]:
    # pipes and broken links are in the skip report, and have no content
    return _of_files(root, [path for path in sorted(files_below(root)) if path.is_file()])


def _of_files(root: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Of files, by their names from `root` on."""
    stats = [path.stat() for path in files]
    total = sum(s.st_size for s in stats)
    digest = sha256()
    for path, stat in zip(files, stats, strict=True):
        name = os.path.relpath(path, root)
        digest.update(f"{name}\0{stat.st_size}\0".encode(errors="replace"))
        if total <= WHOLE and os.access(path, os.R_OK):
            digest.update(path.read_bytes())
    return {
        "size": total,
        "mtime_ns": max((s.st_mtime_ns for s in stats), default=0),
        "sha256": digest.hexdigest(),
        "whole": total <= WHOLE,
    }


def fingerprints(
    sources: Iterable[PairSource | RecordSource | ImageSource],
) -> dict[str, dict[str, Any]]:
    """Of all files and folders of these sources, and under "pictures of …" of what a COCO file names."""
    made: dict[str, dict[str, Any]] = {}
    for source in sources:
        made |= {path: fingerprint(path) for path in source.paths}
        if isinstance(source, ImageSource) and source.kind == "coco" and not source.images:
            made[PICTURES + source.path] = _of_listed(source.path)
    return made


def _of_listed(path: str) -> dict[str, Any]:
    """Of the pictures beside a COCO file that it names."""
    return _of_files(Path(path).parent, listed(ImageSource(path=path, format="coco")))


def check_unchanged(known: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises DataError QKV-035 for a file that differs from its fingerprint, MissingError for one that is gone.

    A file hashed whole may have a new time (copied, touched); one too large for that may not."""
    for path, was in known.items():
        pictures = path.startswith(PICTURES)
        now = _of_listed(path.removeprefix(PICTURES)) if pictures else fingerprint(path)
        same = now["size"] == was["size"] and now["sha256"] == was["sha256"]
        if same and (now["whole"] or now["mtime_ns"] == was["mtime_ns"]):
            continue
        what = f"{was['size']:,} bytes then, {now['size']:,} now"
        if now["size"] == was["size"]:
            what = "other content" if now["sha256"] != was["sha256"] else "a newer time"
        kind = "folder" if os.path.isdir(path) else "list" if pictures else "file"
        raise DataError(
            f"the {kind} changed since this run began ({what})",
            place=path,
            fix="restore it, or start a new run",
            code="QKV-035",
        )


def overlap(train: Iterable[Pair], dev: Iterable[Pair]) -> int:
    """How many pairs of dev occur, both sides exactly, in train.  Holds 16 bytes per pair of train."""

    def key(pair: Pair) -> bytes:
        return blake2b(
            f"{pair.source}\0{pair.target}".encode(errors="replace"), digest_size=16
        ).digest()

    seen = {key(pair) for pair in train}
    return sum(key(pair) in seen for pair in dev)
