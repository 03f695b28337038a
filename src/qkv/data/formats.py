"""How each format turns lines into rows: the wanted cells, or the reason there are none."""

import csv
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..config import parse_json
from ..errors import DataError, did_you_mean
from .lines import MAX_LINE, Line, decode, read_lines
from .report import SkipReport

if TYPE_CHECKING:
    from .sources import PairSource

Column = str | int
Row = tuple[int, list[str], str]  # line number, the wanted cells in order, or why there are none
SUFFIXES = {"tsv": "tsv", "tab": "tsv", "txt": "tsv", "csv": "csv"} | dict.fromkeys(
    ("jsonl", "ndjson", "json"), "jsonl"
)


class Table(Protocol):
    """What the readers of tables and JSON lines ask of a source."""

    @property
    def kind(self) -> str: ...
    @property
    def has_header(self) -> bool: ...
    @property
    def encoding_errors(self) -> Literal["strict", "replace"]: ...


def rows(source: "PairSource", report: SkipReport, one: bool = False) -> Iterator[Row]:
    """`one` asks for the source column alone."""
    wanted = (source.source, *source.where) if one else source.columns
    file = source.path or source.source_path
    if source.kind == "lines":
        return _aligned(source, report)
    if source.kind == "jsonl":
        return _json_rows(source, wanted, file, report)
    if one and _is_plain(source, file):
        return _plain_rows(source, file, report)
    return table_rows(source, wanted, file, report)


def _is_plain(source: "PairSource", file: str) -> bool:
    """A single column of text: no table is named by suffix, format or column."""
    suffix = file.removesuffix(".gz").rpartition(".")[2].lower()
    table = suffix in SUFFIXES and suffix != "txt"
    return source.format == "auto" and not table and source.source == 0 and not source.where


def _text(line: Line, file: str, source: Table, report: SkipReport) -> str:
    return decode(line, file, source.encoding_errors, report)


def _plain_rows(source: "PairSource", file: str, report: SkipReport) -> Iterator[Row]:
    for line in read_lines(file):
        if line.long:
            yield line.number, [], "long line"
        else:
            yield line.number, [_text(line, file, source, report)], ""


def table_rows(
    source: Table, wanted: tuple[Column, ...], file: str, report: SkipReport
) -> Iterator[Row]:
    """The wanted cells of every record of a TSV or CSV file."""
    records = _csv_records if source.kind == "csv" else _tsv_records
    places: list[int] = []
    for number, cells, reason in records(source, file, report):
        if not places:  # the first record: a header, or numbers alone
            places = _places(wanted, cells if source.has_header else None, f"{file}:{number}")
            least = max(places) + 1
            if source.has_header:
                yield number, [], "header"
                continue
        if not reason and len(cells) < least:
            reason = "missing column" if any(cells) else "empty line"
        yield number, [] if reason else [cells[i] for i in places], reason


def _places(wanted: tuple[Column, ...], header: list[str] | None, place: str) -> list[int]:
    """Where each wanted column stands.  Raises DataError QKV-034."""
    names = [name.strip() for name in header] if header is not None else []
    made = []
    for column in wanted:
        if isinstance(column, int):
            made.append(column)
        elif names.count(column) > 1:
            raise DataError(
                f"{names.count(column)} columns are called {column!r}",
                place=place,
                fix="give the number of the one you mean, counted from 0, or rename the other",
                code="QKV-034",
            )
        elif column in names:
            made.append(names.index(column))
        else:
            seen = f"no column {column!r} in the header" if names else f"no header for {column!r}"
            raise DataError(
                seen,
                place=place,
                fix=did_you_mean(column, names) if names else "use numbers",
                code="QKV-034",
            )
    return made


def _tsv_records(source: Table, file: str, report: SkipReport) -> Iterator[Row]:
    for line in read_lines(file):
        if line.long:
            yield line.number, [], "long line"
        else:
            yield line.number, _text(line, file, source, report).split("\t"), ""


def _csv_records(source: Table, file: str, report: SkipReport) -> Iterator[Row]:
    """RFC 4180: a record ends at the first line end with an even number of quotes before it."""
    start, text, quotes, long = 0, "", 0, False
    for line in read_lines(file):
        start = start or line.number
        piece = "" if line.long else _text(line, file, source, report)
        quotes += line.quotes + piece.count('"')
        text = f"{text}\n{piece}" if line.number > start else piece
        if long := long or line.long or len(text) > MAX_LINE:
            text = ""
        if quotes % 2 == 0:
            made: list[str] = [] if long else _cells(text, file, start)
            yield start, made, "long line" if long else ""
            start, text, quotes, long = 0, "", 0, False
    if start:
        raise DataError(
            "a quoted field that begins here never ends",
            place=f"{file}:{start}",
            fix='close the quote, or write "" for a quote within a field',
        )


def _cells(text: str, file: str, line: int) -> list[str]:
    if '"' not in text:
        return text.split(",")
    try:
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # lines have a limit already
        return next(csv.reader([text], strict=True))
    except csv.Error as e:
        raise DataError(
            f"not CSV: {e}",
            place=f"{file}:{line}",
            fix='quote fields as RFC 4180 does: "say ""hi"""',
        ) from None


def _json_rows(
    source: "PairSource", wanted: tuple[Column, ...], file: str, report: SkipReport
) -> Iterator[Row]:
    for number, record, reason in json_records(source, wanted, file, report):
        place = f"{file}:{number}"
        yield number, [_cell(record[str(c)], c, place) for c in wanted if not reason], reason


def json_records(
    source: Table, wanted: tuple[Column, ...], file: str, report: SkipReport
) -> Iterator[tuple[int, dict[str, Any], str]]:
    """The object of every line, or why there is none.

    Raises DataError QKV-033 where a line is no object, QKV-034 where the first one lacks a wanted key."""
    first = True
    for line in read_lines(file):
        text = "" if line.long else _text(line, file, source, report)
        if line.long or not text.strip():
            yield line.number, {}, "long line" if line.long else "empty line"
            continue
        place = f"{file}:{line.number}"
        record = _record(text, place)
        missing = [c for c in wanted if str(c) not in record]
        if missing and first:
            raise DataError(
                f"no key {missing[0]!r}",
                place=place,
                fix=did_you_mean(str(missing[0]), record),
                code="QKV-034",
            )
        first = False
        yield line.number, {} if missing else record, "missing column" if missing else ""


def _record(text: str, place: str) -> dict[str, Any]:
    try:
        record = parse_json(text)
    except ValueError as e:
        raise DataError(f"not strict JSON: {e}", place=place, fix="mend that line") from None
    if not isinstance(record, dict):
        seen = f"a {type(record).__name__} where an object is expected"
        raise DataError(seen, place=place, fix='one object a line: {"text": "…", "label": "…"}')
    return record


def _cell(value: Any, column: Column, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        raise DataError(
            f"{column!r} holds a {type(value).__name__}, not a text",
            place=place,
            fix="name a key with text",
        )
    return plain(value)


def _aligned(source: "PairSource", report: SkipReport) -> Iterator[Row]:
    a, b = source.source_path, source.target_path
    counts = [0, 0]
    for left, right in zip_longest(read_lines(a), read_lines(b)):
        counts[0] += left is not None
        counts[1] += right is not None
        if left is None or right is None:
            continue
        if left.long or right.long:
            yield left.number, [], "long line"
        else:
            cells = [_text(left, a, source, report), _text(right, b, source, report)]
            yield left.number, cells, ""
    if counts[0] != counts[1]:
        from .align import suspicious

        raise DataError(
            f"{a} has {counts[0]:,} lines and {b} has {counts[1]:,}",
            place=f"{a}:{(line := suspicious(a, b))}",
            fix=f"they seem to part at line {line:,}; compare both files there",
            code="QKV-031",
        )


def plain(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
