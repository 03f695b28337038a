"""Where pairs come from: tables (TSV, CSV), JSON lines, two line-aligned files, and what is built in.

Every reader streams, and every line is used or counted in the SkipReport with its reason and place."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from ..config import parse_json
from ..errors import ConfigError, DataError, did_you_mean
from .lines import MAX_LINE, Line, decode, read_lines
from .report import Pair, SkipReport

Column = str | int
INVISIBLE = (
    " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u00ad\u200b\u200c\u200d\u2028\u2029\u2060\u3000\ufeff"
)
SUFFIXES = {"tsv": "tsv", "tab": "tsv", "txt": "tsv", "csv": "csv"} | dict.fromkeys(
    ("jsonl", "ndjson", "json"), "jsonl"
)


@dataclass(frozen=True)
class PairSource:
    """One corpus: a table (`path`, with columns by name or number from 0), two aligned files, or "builtin:…".

    A table has a header when a column is called by name; `header` says otherwise where that guess is wrong.
    `where` keeps the rows whose column has that value, or one of those values."""

    path: str = ""
    source: str | int = 0
    target: str | int = 1
    source_path: str = ""
    target_path: str = ""
    format: Literal["auto", "tsv", "csv", "jsonl", "lines"] = "auto"
    header: Literal["auto", "yes", "no"] = "auto"
    where: dict[str, Any] = field(default_factory=dict)
    encoding_errors: Literal["strict", "replace"] = "strict"
    max_chars: int = 0  # of either side; 0: no limit

    def __post_init__(self) -> None:
        two = bool(self.source_path) + bool(self.target_path)
        if two == 1 or (two == 2) == bool(self.path):
            seen = f"path={self.path!r} source_path={self.source_path!r} target_path={self.target_path!r}"
            raise ConfigError(
                seen, fix="give path, or both source_path and target_path", code="QKV-013"
            )
        if two and (self.where or self.format not in ("auto", "lines")):
            raise ConfigError(
                "two aligned files have no columns",
                fix="remove where and format, or use one table",
                code="QKV-013",
            )
        if self.path and self.format == "lines":
            raise ConfigError(
                'format = "lines" needs two files',
                fix="give source_path and target_path",
                code="QKV-013",
            )
        if any(isinstance(c, int) and c < 0 for c in self.columns):
            raise ConfigError("columns count from 0", fix="source = 0", code="QKV-012")
        if self.max_chars < 0:
            raise ConfigError(f"max_chars must be >= 0 (got {self.max_chars})", fix="max_chars = 0")

    @property
    def columns(self) -> tuple[Column, ...]:
        return (self.source, self.target, *self.where)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files this source reads; none where it is built in."""
        if self.path.startswith("builtin:"):
            return ()
        return (self.path,) if self.path else (self.source_path, self.target_path)

    @property
    def kind(self) -> str:
        """The format that reads it: tsv, csv, jsonl or lines."""
        if self.format != "auto":
            return self.format
        if not self.path:
            return "lines"
        return SUFFIXES.get(self.path.removesuffix(".gz").rpartition(".")[2].lower(), "tsv")

    @property
    def has_header(self) -> bool:
        named = any(isinstance(c, str) for c in self.columns)
        return named if self.header == "auto" else self.header == "yes"


class Row(NamedTuple):
    """What a format found at a line: the wanted cells in order, or the reason there are none."""

    line: int
    cells: list[str]
    reason: str = ""


def read_pairs(source: PairSource, report: SkipReport) -> Iterator[Pair]:
    """The usable pairs of a source, streamed; both sides stripped of outer white space.

    Raises MissingError QKV-020; DataError QKV-030 (encoding), 031 (line counts), 032 (nothing usable),
    033 (malformed record), 034 (no such column), 036 (.gz)."""
    if source.path.startswith("builtin:"):
        from .builtin import read_builtin

        yield from read_builtin(source, report)
        return
    file, seen = source.path or source.source_path, Seen(source.where)
    used, before = report.used, dict(report.skipped)
    for line, cells, reason in _rows(source, report):
        if not reason:
            reason = seen.reason(cells[2:]) or _reason(cells[0], cells[1], source.max_chars)
        if reason:
            report.skip(file, line, reason)
        else:
            report.use()
            yield Pair(cells[0].strip(), cells[1].strip(), f"{file}:{line}")
    if report.used == used:
        raise _nothing(
            source, file, seen, {k: n - before.get(k, 0) for k, n in report.skipped.items()}
        )


def read_texts(
    source: PairSource, report: SkipReport, *, keep_empty: bool = False
) -> Iterator[Pair]:
    """One column of a table, or the lines of a plain file (`source` names the column; `target` is not read).

    Each text comes back as Pair(text, "", place).  `keep_empty` keeps empty lines, so that line n of the output
    answers line n of the input; a line with a NUL or beyond 1 MiB is then kept as an empty text, and counted.
    A file not named as a table (.txt, .en) is one column: tabs stay in the text.  Raises as `read_pairs` does."""
    file, seen = source.path or source.source_path, Seen(source.where)
    used = report.used
    for line, cells, reason in _rows(source, report, one=True):
        reason = reason or seen.reason(cells[1:]) or _reason(cells[0], ".", source.max_chars)
        if reason == "empty source":
            reason = "empty line"
        if reason and not (keep_empty and reason == "empty line"):
            report.skip(file, line, reason)
            if not keep_empty or reason in ("header", "filtered"):
                continue
            cells = [""]
        else:
            report.use()
        yield Pair(cells[0].strip() if cells else "", "", f"{file}:{line}")
    if report.used == used and not keep_empty:
        raise _nothing(source, file, seen, dict(report.skipped))


def _reason(source: str, target: str, max_chars: int) -> str:
    if "\0" in source or "\0" in target:
        return "NUL character"
    empty = not source.strip(INVISIBLE), not target.strip(INVISIBLE)
    if any(empty):
        return "empty line" if all(empty) else "empty source" if empty[0] else "empty target"
    return "long text" if max_chars and max(len(source), len(target)) > max_chars else ""


class Seen:
    """The `where` filter, which remembers some of the values it met for the error message."""

    def __init__(self, where: dict[str, Any]) -> None:
        several = [v if isinstance(v, (list, tuple)) else [v] for v in where.values()]
        self.allowed = [{_plain(v) for v in values} for values in several]
        self.met: set[str] = set()

    def reason(self, cells: list[str]) -> str:
        for cell, allowed in zip(cells, self.allowed, strict=True):
            if cell not in allowed:
                if len(self.met) < 20:
                    self.met.add(cell[:40])
                return "filtered"
        return ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _nothing(source: PairSource, file: str, seen: Seen, skipped: dict[str, int]) -> DataError:
    counts = (
        ", ".join(f"{n:,} {reason}" for reason, n in skipped.items() if n) or "the file is empty"
    )
    real = {k: n for k, n in skipped.items() if n and k not in ("header", "empty line")}
    if set(real) == {"missing column"}:
        return DataError(
            f"no line has the columns {', '.join(map(str, source.columns))} ({counts})",
            place=file,
            fix=f"is it {source.kind}? Columns count from 0 and are set apart by "
            + ("commas" if source.kind == "csv" else "tabs"),
            code="QKV-034",
        )
    fix = "check the file and its columns"
    if set(real) == {"filtered"}:
        wanted = next(iter(seen.allowed[0]), "")
        fix = f"where = {source.where} keeps no row; " + did_you_mean(wanted, seen.met)
    return DataError(f"no usable line ({counts})", place=file, fix=fix, code="QKV-032")


def _rows(source: PairSource, report: SkipReport, one: bool = False) -> Iterator[Row]:
    """`one` asks for the source column alone."""
    wanted = (source.source, *source.where) if one else source.columns
    file = source.path or source.source_path
    if source.kind == "lines":
        return _aligned(source, report)
    if source.kind == "jsonl":
        return _json_rows(source, wanted, file, report)
    if one and _is_plain(source, file):
        return _plain_rows(source, file, report)
    return _table_rows(source, wanted, file, report)


def _is_plain(source: PairSource, file: str) -> bool:
    """A single column of text: no table is named by suffix, format or column."""
    suffix = file.removesuffix(".gz").rpartition(".")[2].lower()
    table = suffix in SUFFIXES and suffix != "txt"
    return source.format == "auto" and not table and source.source == 0 and not source.where


def _text(line: Line, file: str, source: PairSource, report: SkipReport) -> str:
    return decode(line, file, source.encoding_errors, report)


def _plain_rows(source: PairSource, file: str, report: SkipReport) -> Iterator[Row]:
    for line in read_lines(file):
        if line.long:
            yield Row(line.number, [], "long line")
        else:
            yield Row(line.number, [_text(line, file, source, report)])


def _table_rows(
    source: PairSource, wanted: tuple[Column, ...], file: str, report: SkipReport
) -> Iterator[Row]:
    records = _csv_records if source.kind == "csv" else _tsv_records
    places: list[int] = []
    for number, cells, reason in records(source, file, report):
        if not places:  # the first record: a header, or numbers alone
            places = _places(wanted, cells if source.has_header else None, f"{file}:{number}")
            least = max(places) + 1
            if source.has_header:
                yield Row(number, [], "header")
                continue
        if not reason and len(cells) < least:
            reason = "missing column" if any(cells) else "empty line"
        yield Row(number, [] if reason else [cells[i] for i in places], reason)


def _places(wanted: tuple[Column, ...], header: list[str] | None, place: str) -> list[int]:
    """Where each wanted column stands.  Raises DataError QKV-034."""
    names = [name.strip() for name in header] if header is not None else []
    made = []
    for column in wanted:
        if isinstance(column, int):
            made.append(column)
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


def _tsv_records(source: PairSource, file: str, report: SkipReport) -> Iterator[Row]:
    for line in read_lines(file):
        if line.long:
            yield Row(line.number, [], "long line")
        else:
            yield Row(line.number, _text(line, file, source, report).split("\t"))


def _csv_records(source: PairSource, file: str, report: SkipReport) -> Iterator[Row]:
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
            yield Row(start, [], "long line") if long else Row(start, _cells(text, file, start))
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
        return next(csv.reader([text], strict=True))
    except csv.Error as e:
        raise DataError(
            f"not CSV: {e}",
            place=f"{file}:{line}",
            fix='quote fields as RFC 4180 does: "say ""hi"""',
        ) from None


def _json_rows(
    source: PairSource, wanted: tuple[Column, ...], file: str, report: SkipReport
) -> Iterator[Row]:
    first = True
    for line in read_lines(file):
        text = "" if line.long else _text(line, file, source, report)
        if line.long or not text.strip():
            yield Row(line.number, [], "long line" if line.long else "empty line")
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
        cells = [] if missing else [_cell(record[str(c)], c, place) for c in wanted]
        yield Row(line.number, cells, "missing column" if missing else "")


def _record(text: str, place: str) -> dict[str, Any]:
    try:
        record = parse_json(text)
    except ValueError as e:
        raise DataError(f"not strict JSON: {e}", place=place, fix="mend that line") from None
    if not isinstance(record, dict):
        seen = f"a {type(record).__name__} where an object is expected"
        raise DataError(seen, place=place, fix='write {"source": "…", "target": "…"}')
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
    return _plain(value)


def _aligned(source: PairSource, report: SkipReport) -> Iterator[Row]:
    a, b = source.source_path, source.target_path
    counts = [0, 0]
    for left, right in zip_longest(read_lines(a), read_lines(b)):
        counts[0] += left is not None
        counts[1] += right is not None
        if left is None or right is None:
            continue
        if left.long or right.long:
            yield Row(left.number, [], "long line")
        else:
            cells = [_text(left, a, source, report), _text(right, b, source, report)]
            yield Row(left.number, cells)
    if counts[0] != counts[1]:
        from .align import suspicious

        raise DataError(
            f"{a} has {counts[0]:,} lines and {b} has {counts[1]:,}",
            place=f"{a}:{(line := suspicious(a, b))}",
            fix=f"they seem to part at line {line:,}; compare both files there",
            code="QKV-031",
        )
