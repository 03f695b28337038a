"""The members of a tar archive as bytes in memory, streamed; nothing is ever written to the disk.

Headers are parsed by the standard library's TarInfo.frombuf, which checks their sums; sizes and names are judged here,
before a byte of a member is read: a name may not be absolute, climb (..), or be longer than MAX_NAME."""

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import DataError
from ..lines import chunks
from .decode import MAX_BYTES

BLOCK = 512
MAX_NAME = 1024  # bytes
MAX_HEADER = 1 << 20  # bytes of one extended header
MAX_MEMBERS = 5_000_000
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class Member(NamedTuple):
    """`number` counts the members that are no folders, from 1.  reason: why it has no bytes."""

    name: str
    number: int
    raw: bytes
    offset: int  # of the first byte in the unpacked archive
    reason: str = ""


class _Reader:
    """Exactly n bytes of a stream of chunks."""

    def __init__(self, stream: Iterator[bytes], path: str) -> None:
        self.stream, self.path, self.at, self.held = stream, path, 0, b""

    def take(self, n: int, keep: bool = True) -> bytes:
        """The next n bytes, or nothing of them where they are to be passed over.  Raises DataError QKV-036."""
        parts: list[bytes] = []
        missing = n
        while missing:
            if not self.held:
                self.held = next(self.stream, b"")
            if not self.held:
                raise _damaged(self.path, f"is cut off after {self.at:,} bytes")
            part, self.held = self.held[:missing], self.held[missing:]
            missing -= len(part)
            self.at += len(part)
            if keep:
                parts.append(part)
        return b"".join(parts)


def _damaged(path: str, seen: str) -> DataError:
    return DataError(seen, place=path, fix="fetch or pack it again", code="QKV-036")


def members(path: str) -> Iterator[Member]:
    """Every member that is no folder, in the archive's order; .gz is unpacked on the way.

    Raises MissingError QKV-020, DataError QKV-036 (damaged, a bomb, cut off: an archive ends in a block of zeros)."""
    reader = _Reader(chunks(path), path)
    number = 0
    named: dict[str, str] = {}  # what extended headers said of the next member
    while True:
        block = reader.take(BLOCK)
        if not block.strip(b"\0"):
            return
        try:
            head = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as e:
            raise _damaged(path, f"byte {reader.at - BLOCK:,} is no tar header: {e}") from None
        if head.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE):
            named |= _extended(reader, head)
            continue
        if head.size < 0:
            raise _damaged(path, f"a member of {head.size} bytes")
        name, size = named.get("path", head.name), int(named.get("size", head.size))
        named = {}
        if head.type == tarfile.DIRTYPE:
            reader.take(_padded(size if head.size else 0), keep=False)
            continue
        number += 1
        if number > MAX_MEMBERS:
            raise _damaged(path, f"has more than {MAX_MEMBERS:,} members")
        reason = _reason(name, head.type, size)
        offset = reader.at
        if head.type not in REGULAR:
            size = 0 if head.type in (tarfile.LNKTYPE, tarfile.SYMTYPE) else size
        raw = reader.take(size, keep=not reason)
        reader.take(_padded(size) - size, keep=False)
        yield Member(_shown(name), number, raw, offset, reason)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _extended(reader: _Reader, head: tarfile.TarInfo) -> dict[str, str]:
    """What an extended header says of the member after it: its path and size (POSIX.1-2001; GNU's long names)."""
    if not 0 <= head.size <= MAX_HEADER:
        raise _damaged(reader.path, f"an extended header of {head.size:,} bytes")
    raw = reader.take(head.size)
    reader.take(_padded(head.size) - head.size, keep=False)
    if head.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
    if head.type == tarfile.XGLTYPE:
        return {}
    found: dict[str, str] = {}
    while raw.strip(b"\0"):
        length, space, _ = raw.partition(b" ")
        if not space or not length.isdigit() or not 0 < int(length) <= len(raw):
            raise _damaged(reader.path, "an extended header that cannot be read")
        record, raw = raw[len(length) + 1 : int(length)], raw[int(length) :]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        if key == b"path":
            found["path"] = value.decode("utf-8", "surrogateescape")
        elif key == b"size":
            if not value.isdigit():
                raise _damaged(reader.path, f"a member of {value[:20]!r} bytes")
            found["size"] = value.decode()
    return found


def _reason(name: str, kind: bytes, size: int) -> str:
    if kind not in REGULAR:
        return "link or device"
    if unsafe(name):
        return "unsafe name"
    return "too many bytes" if size > MAX_BYTES else ""


def unsafe(name: str) -> bool:
    """May this name not stand for a file below some folder?"""
    parts = name.replace("\\", "/").split("/")
    long = len(name.encode("utf-8", "surrogateescape")) > MAX_NAME
    return not name or name.startswith(("/", "\\")) or ".." in parts or "\0" in name or long


def _shown(name: str) -> str:
    """A name that can be printed and stored as UTF-8."""
    return shown(name).removeprefix("./")


def shown(name: str) -> str:
    """A file's name with the bytes that are not UTF-8 written out: \\xb5."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
