"""What a folder holds, provably: `manifest.json` with the size and sha256 of every file and of itself."""

import errno
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qkv.errors import StoreError

FORMAT_VERSION = 1
MANIFEST, LOCK = "manifest.json", ".lock"
LARGEST = 16 << 20  # bytes of a manifest
LONGEST_NAME = 230  # bytes: file systems take 255, and `.trash-<16 hex digits>` must fit behind
MOST_VALUES = 1 << 20  # of a JSON file; a safetensors header of 170,000 tensors has fewer
AGAIN = "copy the folder again, or use another checkpoint"

# The two links that the Hugging Face cache makes: snapshots/<commit>/NAME -> its blob, and that -> one that repositories share.
TO_BLOB = re.compile(r"\.\./\.\./(blobs/[0-9A-Za-z_-][0-9A-Za-z_.-]{0,200})")
TO_SHARED = re.compile(r"\.\./\.\./(blobs/[0-9a-f]{2}/[0-9a-f]{64})")


def check_name(name: str, place: object) -> None:
    """A plain name of a file, free to use.  Raises StoreError QKV-061."""
    plain = name.isprintable() and "/" not in name and name not in ("", ".", "..", MANIFEST, LOCK)
    if not plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise StoreError(
            f"{name[:60]!r} cannot be a file name here",
            place=place,
            fix=f"use printable characters, at most {LONGEST_NAME} bytes, no slash",
            code="QKV-061",
        )


def open_inside(folder: str | Path, name: str) -> io.BufferedReader:
    """Open a regular file below a folder for reading, following no link but those of the hub's cache.  Raises StoreError QKV-060."""
    parts = name.split("/")
    if not name or "\0" in name or {"", ".", ".."} & set(parts):
        raise StoreError(
            f"{name[:200]!r} is not a path inside the folder", place=folder, fix="name a file in it"
        )
    fd = -1
    behind = _behind(Path(os.path.realpath(folder)), name)
    if behind:
        return open_inside(*behind)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for depth, part in enumerate(parts, 1):
            # O_NONBLOCK: opening a pipe that nobody writes to must not hang
            kind = os.O_NONBLOCK if depth == len(parts) else os.O_DIRECTORY
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=fd)
            os.close(fd)
            fd = inner
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreError("is not a regular file", place=f"{folder}/{name}", fix=AGAIN)
        return open(fd, "rb")
    except BaseException as e:
        if fd >= 0:
            os.close(fd)
        if not isinstance(e, OSError):
            raise
        seen = {errno.ENOENT: "is missing", errno.ELOOP: "is a symbolic link"}.get(e.errno or 0)
        seen = seen or f"cannot be read: {e.strerror}"
        raise StoreError(seen, place=f"{folder}/{name}", fix=AGAIN) from e


def _behind(folder: Path, name: str) -> tuple[Path, str] | None:
    """The folder and name that a link of the hub's cache stands for; None for any other link, and for what is no link.

    Only the two exact forms are known, so a link cannot point out of the cache; the blob itself may not be a further link."""
    try:
        target = os.readlink(folder / name)
    except OSError:
        return None
    if "/" not in name and folder.parent.name == "snapshots" and (m := TO_BLOB.fullmatch(target)):
        return folder.parent.parent, m[1]
    blob = name.startswith("blobs/") and name.count("/") == 1
    if blob and folder.name.startswith("models--") and (m := TO_SHARED.fullmatch(target)):
        return folder.parent, m[1]
    return None


def is_crowded(text: bytes) -> bool:
    """JSON that would become more objects than any true file has: a megabyte of `[],` takes thirty of memory."""
    return max(map(text.count, (b"{", b"[", b",", b":"))) > MOST_VALUES


def to_bytes(files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The one way to write a manifest of these files."""
    body = {"format_version": FORMAT_VERSION, "files": files}
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    whole = {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return (json.dumps(whole, sort_keys=True, ensure_ascii=False, indent=1) + "\n").encode()


def read(folder: Path) -> dict[str, Any]:
    """Raises StoreError QKV-060 if the manifest is missing or not exactly what qkv writes, QKV-063 if a newer one wrote it."""
    place = folder / MANIFEST
    try:
        with open_inside(folder, MANIFEST) as f:
            raw = f.read(LARGEST)
        manifest = json.loads(raw)
        version = manifest["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            seen = f"format {version}; this qkv reads up to {FORMAT_VERSION}"
            raise StoreError(seen, place=place, fix="upgrade qkv", code="QKV-063")
        whole = all(
            type(e["size"]) is int and isinstance(e["sha256"], str) and name
            for name, e in manifest["files"].items()
        )
        # only one text says these things, so a flipped bit anywhere in the file is seen
        if whole and raw == to_bytes(manifest["files"]):
            for name in manifest["files"]:
                check_name(name, folder)
            return dict(manifest)
    except OSError as e:
        raise StoreError(f"cannot be read: {e.strerror}", place=place, fix=AGAIN) from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise StoreError("the manifest is damaged or was edited", place=place, fix=AGAIN)


def check(folder: Path, deep: bool) -> dict[str, Any]:
    """The manifest, once every file has proved to be the one that was written (deep=False: by name and size)."""
    manifest = read(folder)
    files = manifest["files"]
    try:
        extra = sorted(set(os.listdir(folder)) - set(files) - {MANIFEST, LOCK})
    except OSError as e:
        raise StoreError(f"cannot be read: {e.strerror}", place=folder, fix=AGAIN) from e
    if extra:
        place = folder / extra[0]
        raise StoreError("unexpected, not in the manifest", place=place, fix="move it elsewhere")
    for name, entry in files.items():
        differs = _differs(folder, name, entry, deep)
        if differs:
            raise StoreError(differs, place=folder / name, fix=AGAIN)
    return manifest


def _differs(folder: Path, name: str, entry: Mapping[str, Any], deep: bool) -> str:
    with open_inside(folder, name) as f:
        size = os.fstat(f.fileno()).st_size
        if size != entry["size"]:
            return f"size {size:,} bytes, written as {entry['size']:,}"
        if not deep:
            return ""
        try:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError as e:
            return f"cannot be read: {e.strerror}"
    wrong = digest != entry["sha256"]
    return f"sha256 {digest[:12]}…, written as {entry['sha256'][:12]}…" if wrong else ""
