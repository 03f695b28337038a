"""Where pairs come from: tables (TSV, CSV), JSON lines, two line-aligned files, and what is built in.

Every reader streams, and every line is used or counted in the SkipReport with its reason and place."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ConfigError, DataError, did_you_mean
from .formats import SUFFIXES, Column, plain, rows
from .lines import LONE
from .report import Pair, SkipReport, counted

INVISIBLE = (
    " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u00ad\u200b\u200c\u200d\u2028\u2029\u2060\u3000\ufeff"
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
    for line, cells, reason in rows(source, report):
        if not reason:
            reason = seen.reason(cells[2:]) or _reason(cells[0], cells[1], source.max_chars)
        if reason:
            report.skip(file, line, reason)
        else:
            report.use()
            yield Pair(cells[0].strip(), cells[1].strip(), f"{file}:{line}")
    if report.used == used:
        raise _nothing(source, file, seen, report.since(before))


def read_texts(
    source: PairSource, report: SkipReport, *, keep_empty: bool = False
) -> Iterator[Pair]:
    """One column of a table, or the lines of a plain file (`source` names the column; `target` is not read).

    Each text comes back as Pair(text, "", place).  `keep_empty` keeps empty lines, so that line n of the output
    answers line n of the input; a line with a NUL or beyond 1 MiB is then kept as an empty text, and counted.
    A file not named as a table (.txt, .en) is one column: tabs stay in the text.  Raises as `read_pairs` does."""
    file, seen = source.path or source.source_path, Seen(source.where)
    used = report.used
    for line, cells, reason in rows(source, report, one=True):
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
    if LONE.search(source) or LONE.search(target):
        return "half a character"
    empty = not source.strip(INVISIBLE), not target.strip(INVISIBLE)
    if any(empty):
        return "empty line" if all(empty) else "empty source" if empty[0] else "empty target"
    return "long text" if max_chars and max(len(source), len(target)) > max_chars else ""


class Seen:
    """The `where` filter, which remembers some of the values it met for the error message."""

    def __init__(self, where: dict[str, Any]) -> None:
        several = [v if isinstance(v, (list, tuple)) else [v] for v in where.values()]
        self.allowed = [{plain(v) for v in values} for values in several]
        self.met: set[str] = set()

    def reason(self, cells: list[str]) -> str:
        for cell, allowed in zip(cells, self.allowed, strict=True):
            if cell not in allowed:
                if len(self.met) < 20:
                    self.met.add(cell[:40])
                return "filtered"
        return ""


def _nothing(source: PairSource, file: str, seen: Seen, skipped: dict[str, int]) -> DataError:
    counts = counted(skipped) or "the file is empty"
    real = skipped.keys() - {"header", "empty line"}
    if real == {"missing column"}:
        return DataError(
            f"no line has the columns {', '.join(map(str, source.columns))} ({counts})",
            place=file,
            fix=f"is it {source.kind}? Columns count from 0 and are set apart by "
            + ("commas" if source.kind == "csv" else "tabs"),
            code="QKV-034",
        )
    fix = "check the file and its columns"
    if real == {"filtered"}:
        wanted = next(iter(seen.allowed[0]), "")
        fix = f"where = {source.where} keeps no row; " + did_you_mean(wanted, seen.met)
    return DataError(f"no usable line ({counts})", place=file, fix=fix, code="QKV-032")
