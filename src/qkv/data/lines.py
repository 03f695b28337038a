r"""Lines of a text file as bytes, streamed: records end at b"\n" and nowhere else.

U+2028, U+0085, vertical tab and a lone "\r" stay inside their line (a reader that splits there shifts one side of a
parallel corpus).  A line beyond MAX_LINE is noted and passed over without being held in memory; .gz is unpacked on the
way, and refused where it swells like a bomb."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from ..errors import DataError, MissingError, did_you_mean
from .report import SkipReport

MAX_LINE = 1 << 20  # bytes
MAX_WHOLE = 1 << 28  # bytes of a file that must be held at once
MAX_RATIO, RATIO_FREE = 200, 4 << 20  # unpacked : packed, once this many bytes came out
CHUNK = 1 << 17
LONE = re.compile("[\ud800-\udfff]")  # half a surrogate pair, as JSON may name: no UTF-8 holds it
BOM = b"\xef\xbb\xbf"
MARKS = {  # the longer marks first: UTF-32's little-endian mark begins with UTF-16's
    b"\xff\xfe\x00\x00": "UTF-32LE",
    b"\x00\x00\xfe\xff": "UTF-32BE",
    b"\xff\xfe": "UTF-16LE",
    b"\xfe\xff": "UTF-16BE",
}


class Line(NamedTuple):
    number: int  # from 1
    offset: int  # of the first byte, in the unpacked file
    raw: bytes  # without "\n" and one "\r"; empty where the line is too long
    long: bool = False
    quotes: int = 0  # how many '"' an over-long line held, for CSV


def read_lines(path: str) -> Iterator[Line]:
    """Every line of a file (plain or .gz); a last line without "\\n" counts, an empty rest does not.

    Raises MissingError QKV-020, DataError QKV-030 (UTF-16/32) and QKV-036 (.gz)."""
    number, offset = 1, 0
    carry, size, quotes = b"", 0, 0  # of the unfinished line
    first = True
    for chunk in _headed(chunks(path)):
        if first:
            _refuse_foreign(chunk, path)
            offset = len(BOM) if chunk.startswith(BOM) else 0
            chunk, first = chunk[offset:], False
        head, *more = chunk.split(b"\n")
        size += len(head)
        quotes += head.count(b'"')
        if not more:
            carry = carry + head if size <= MAX_LINE else b""
            continue
        yield _line(number, offset, carry + head, size, quotes)
        number, offset = number + 1, offset + size + 1
        carry = more.pop()
        for raw in more:  # whole lines within one chunk, none of them long
            yield Line(number, offset, raw[:-1] if raw.endswith(b"\r") else raw)
            number += 1
            offset += len(raw) + 1
        size, quotes = len(carry), carry.count(b'"')
    if size:
        yield _line(number, offset, carry, size, quotes)


def _line(number: int, offset: int, raw: bytes, size: int, quotes: int) -> Line:
    if size > MAX_LINE:
        return Line(number, offset, b"", True, quotes)
    return Line(number, offset, raw[:-1] if raw.endswith(b"\r") else raw)


def read_whole(path: str) -> Line:
    """All of a file as one line, without its byte order mark.  Raises as `read_lines`, and DataError QKV-037."""
    parts, size = [], 0
    for chunk in _headed(chunks(path)):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_WHOLE:
            raise DataError(
                f"more than {MAX_WHOLE >> 20} MiB in one document",
                place=path,
                fix="write it as JSON lines",
                code="QKV-037",
            )
    raw = b"".join(parts)
    _refuse_foreign(raw[: 1 << 12], path)
    return Line(1, 0, raw.removeprefix(BOM))


def decode(line: Line, path: str, errors: Literal["strict", "replace"], report: SkipReport) -> str:
    """The text of a line.  Raises DataError QKV-030 at the first bad byte, or replaces and counts."""
    try:
        return line.raw.decode()
    except UnicodeDecodeError as e:
        if errors == "replace":
            report.replaced += 1
            return line.raw.decode(errors="replace")
        korean = _is_cp949(line.raw)
        raise DataError(
            f"byte {line.raw[e.start]:#04x} at offset {line.offset + e.start} is not UTF-8"
            + (" (it reads as CP949/EUC-KR)" if korean else ""),
            place=f"{path}:{line.number}",
            fix=remedy(line.raw)
            + ("" if korean else '; a recipe may also set encoding_errors = "replace"'),
            code="QKV-030",
        ) from None


def remedy(raw: bytes) -> str:
    """What to do with text that is not UTF-8."""
    name = marked(raw) or ("CP949" if _is_cp949(raw) else "")
    return f"convert it: iconv -f {name} -t UTF-8" if name else "save it as UTF-8"


def marked(head: bytes) -> str:
    """The encoding that the first bytes of a text tell; nothing where they tell none."""
    name = next((name for mark, name in MARKS.items() if head.startswith(mark)), "")
    if not name and (sample := head[:4096]).count(0) * 4 > len(sample) >= 4:
        name = "UTF-16" + ("LE" if sample[1::2].count(0) > sample[::2].count(0) else "BE")
    return name


def _is_cp949(raw: bytes) -> bool:
    """Korean text of the last century is mostly CP949: it decodes to Hangul."""
    try:
        text = raw.decode("cp949")
    except UnicodeDecodeError:
        return False
    return any("가" <= c <= "힣" for c in text)


def _refuse_foreign(head: bytes, path: str) -> None:
    if name := marked(head):
        raise DataError(
            f"the file looks like {name}",
            place=path,
            fix=remedy(head),
            code="QKV-030",
        )


def open_file(path: str) -> BinaryIO:
    """Raises MissingError QKV-020 that names the nearest file of that folder."""
    try:
        return open(path, "rb")
    except OSError as e:
        there = Path(path)
        near = [p.name for p in there.parent.iterdir()] if there.parent.is_dir() else []
        seen = "is a folder" if there.is_dir() else f"cannot be opened: {e.strerror}"
        guess = did_you_mean(there.name, near) if isinstance(e, FileNotFoundError) and near else ""
        fix = guess if guess.startswith("did") else "check the path"
        raise MissingError(f"{path} {seen}", place=path, fix=fix) from None


def _headed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, the first piece long enough to judge the encoding by (a .gz may come in tiny members)."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= 4096:
            break
    yield head
    yield from chunks


def chunks(path: str) -> Iterator[bytes]:
    """The bytes of a file, unpacked where it is gzip.  Raises MissingError QKV-020, DataError QKV-036."""
    with open_file(path) as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(b"PK\x03\x04"):
            raise DataError("is a zip archive", place=path, fix="unpack it first", code="QKV-036")
        if head.startswith(b"\x1f\x8b"):
            yield from _inflate(file, path)
        elif path.endswith(".gz"):
            seen = f"is named .gz and begins with {head!r}, not with gzip's 1f 8b"
            raise DataError(seen, place=path, fix="remove .gz from its name", code="QKV-036")
        else:
            while chunk := file.read(CHUNK):
                yield chunk


def _inflate(file: BinaryIO, path: str) -> Iterator[bytes]:
    """Unpack a gzip stream of one or more members.  Raises DataError QKV-036: damaged, cut off or a bomb."""
    read = made = 0
    unpack, begun = zlib.decompressobj(31), False
    try:
        while block := file.read(1 << 14):
            read += len(block)
            while block:
                begun = True
                out = unpack.decompress(block, CHUNK)
                made += len(out)
                if made > RATIO_FREE and made > MAX_RATIO * read:
                    raise DataError(
                        f"{read:,} bytes unpack to more than {made:,}: over {MAX_RATIO}:1, like a bomb",
                        place=path,
                        fix="unpack it yourself (gunzip) if you trust it",
                        code="QKV-036",
                    )
                yield out
                block = unpack.unconsumed_tail
                if unpack.eof:  # another member, or the zeros that tape drives add
                    block = unpack.unused_data.lstrip(b"\0")
                    unpack, begun = zlib.decompressobj(31), False
        if begun:
            yield unpack.flush()
            begun = not unpack.eof
    except zlib.error as e:
        seen = f"is damaged near byte {read:,}: {e}"
        raise DataError(seen, place=path, fix="fetch it again", code="QKV-036") from None
    if begun:
        seen = f"is cut off after {read:,} bytes"
        raise DataError(seen, place=path, fix="fetch it again", code="QKV-036")
