"""Where single examples come from: tables, JSON lines, plain text, SQuAD's JSON.

A record holds values by the names an objective knows them by ("text", "label", "tags"), whatever the file calls them.
As everywhere in data/, every line is used or counted in the SkipReport with its reason and place."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config import parse_json
from ..errors import ConfigError, DataError
from .builtin import read_builtin_records
from .formats import SUFFIXES, Column, json_records, plain, table_rows
from .lines import LONE, decode, read_lines, read_whole
from .report import SkipReport, counted
from .sources import INVISIBLE, Seen

SQUAD = ("context", "question", "answers")


@dataclass(frozen=True)
class Record:
    """One example: its values by name, where it begins ("file:line"), and how many lines it is made of."""

    values: dict[str, Any]
    place: str
    lines: int = 1


@dataclass(frozen=True)
class RecordSource:
    """One file of examples.  `fields` says which column or key each of the objective's names is read from.

    A text file has one field, "text": each line, each block between empty lines, or the whole file (of which `part`
    keeps a share by characters: nanoGPT trains on (0, 0.9) and measures on (0.9, 1)).  SQuAD's has context, question
    and answers.  "builtin:…" (listops, match and the built-in pairs) has columns of its own."""

    path: str
    fields: dict[str, Any] = field(default_factory=dict)
    format: Literal["auto", "tsv", "csv", "jsonl", "text", "squad"] = "auto"
    unit: Literal["line", "block", "file"] = "block"
    part: tuple[float, ...] = (0.0, 1.0)
    header: Literal["auto", "yes", "no"] = "auto"
    where: dict[str, Any] = field(default_factory=dict)
    encoding_errors: Literal["strict", "replace"] = "strict"
    max_chars: int = 0  # of any text of a record; 0: no limit

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("no path", fix='path = "train.tsv"', code="QKV-015")
        for name, column in self.fields.items():
            if isinstance(column, bool) or not isinstance(column, (str, int)):
                raise ConfigError(
                    f"fields.{name} must be a column's name or number (got {column!r})",
                    fix=f'fields = {{ {name} = "text" }}',
                    code="QKV-011",
                )
        if any(isinstance(c, int) and c < 0 for c in self.columns):
            raise ConfigError("columns count from 0", fix="text = 0")
        if self.kind in ("text", "squad") and (self.fields or self.where):
            raise ConfigError(
                f"a file of format {self.kind!r} has no columns",
                fix="remove fields and where, or say format = ",
                code="QKV-013",
            )
        if len(self.part) != 2 or not 0 <= self.part[0] < self.part[1] <= 1:
            raise ConfigError(f"part {self.part} is no share of a text", fix="part = [0.0, 0.9]")
        if self.part != (0.0, 1.0) and (self.kind != "text" or self.unit != "file"):
            raise ConfigError(
                "part cuts a whole text", fix='unit = "file", format = "text"', code="QKV-013"
            )
        if self.max_chars < 0:
            raise ConfigError(f"max_chars must be >= 0 (got {self.max_chars})", fix="max_chars = 0")

    @property
    def kind(self) -> str:
        """The format that reads it: tsv, csv, jsonl, text, squad or builtin."""
        if self.path.startswith("builtin:"):
            return "builtin"
        if self.format != "auto":
            return self.format
        suffix = self.path.removesuffix(".gz").rpartition(".")[2].lower()
        plain_text = suffix == "txt" and not self.fields
        return "text" if plain_text else SUFFIXES.get(suffix, "tsv" if self.fields else "text")

    @property
    def names(self) -> dict[str, Column]:
        default: Column = "text" if self.kind == "jsonl" else 0
        return self.fields or {"text": default}

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.names.values(), *self.where)

    @property
    def has_header(self) -> bool:
        named = any(isinstance(c, str) for c in self.columns)
        return named if self.header == "auto" else self.header == "yes"

    @property
    def paths(self) -> tuple[str, ...]:
        """The files this source reads; none where it is built in."""
        return () if self.kind == "builtin" else (self.path,)


def read_records(source: RecordSource, report: SkipReport) -> Iterator[Record]:
    """The usable records of a source, streamed.  Cells of tables are stripped; JSON's texts stay as they are.

    Raises MissingError QKV-020; DataError QKV-030 (encoding), 032 (nothing usable), 033 (malformed), 034 (no such
    column), 036 (.gz), 037 (a JSON document beyond MAX_WHOLE)."""
    used, before = report.used, dict(report.skipped)
    readers = {"text": _texts, "squad": _squad, "jsonl": _objects, "builtin": _built}
    yield from readers.get(source.kind, _cells)(source, report)
    if report.used == used:
        said = counted(report.since(before))
        raise DataError(
            f"no usable line ({said or 'the file is empty'})",
            place=source.path,
            fix="check the file, its columns and `where`",
            code="QKV-032",
        )


def _cells(source: RecordSource, report: SkipReport) -> Iterator[Record]:
    seen, names = Seen(source.where), list(source.names)
    for line, cells, reason in table_rows(source, source.columns, source.path, report):
        values = dict(zip(names, (c.strip() for c in cells), strict=False))
        reason = reason or seen.reason(cells[len(names) :])
        yield from _judged(source, report, values, line, reason)


def _objects(source: RecordSource, report: SkipReport) -> Iterator[Record]:
    seen = Seen(source.where)
    for line, record, reason in json_records(source, source.columns, source.path, report):
        if not reason:
            reason = seen.reason([plain(record[str(c)]) for c in source.where])
        values = {n: record[str(c)] for n, c in source.names.items()} if not reason else {}
        yield from _judged(source, report, values, line, reason)


def _built(source: RecordSource, report: SkipReport) -> Iterator[Record]:
    for values, place in read_builtin_records(source, report):
        yield Record(dict(values), place)


def _judged(
    source: RecordSource,
    report: SkipReport,
    values: dict[str, Any],
    line: int,
    reason: str,
    lines: int = 1,
) -> Iterator[Record]:
    """The record, or its lines in the report."""
    reason = reason or _reason(values, source.max_chars)
    for at in range(line, line + lines):
        if reason:
            report.skip(source.path, at, reason)
        else:
            report.use()
    if not reason:
        yield Record(values, f"{source.path}:{line}", lines)


def _reason(values: dict[str, Any], max_chars: int) -> str:
    texts = ["" if v is None else v for v in values.values() if v is None or isinstance(v, str)]
    if any("\0" in text for text in _inner(list(values.values()))):
        return "NUL character"
    if any(LONE.search(text) for text in _inner(list(values.values()))):
        return "half a character"
    empty = [not text.strip(INVISIBLE) for text in texts]
    if any(empty):
        return "empty line" if all(empty) and len(texts) == len(values) else "empty field"
    return "long text" if max_chars and any(len(text) > max_chars for text in texts) else ""


def _inner(value: Any) -> Iterator[str]:
    """Every text of a value of JSON, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _inner(item)


# -- plain text ---------------------------------------------------------------------------------------------


def _texts(source: RecordSource, report: SkipReport) -> Iterator[Record]:
    """Lines, blocks or the whole; a line that cannot be used ends a block, for what follows it does not follow."""
    block: list[str] = []
    first = 0
    for number, text, reason in _lines(source, report):
        whole = source.unit == "file"
        bad = reason or ("NUL character" if "\0" in text else "")
        if not bad and not whole and not text.strip(INVISIBLE):
            bad = "empty line"
        if block and (bad and not whole or source.unit == "line"):
            yield from _block(source, report, block, first)
            block = []
        if bad:
            report.skip(source.path, number, bad)
        else:
            first = first if block else number
            block.append(text)
    if block:
        yield from _block(source, report, block, first)


def _lines(source: RecordSource, report: SkipReport) -> Iterator[tuple[int, str, str]]:
    for line in read_lines(source.path):
        text = "" if line.long else decode(line, source.path, source.encoding_errors, report)
        yield line.number, text, "long line" if line.long else ""


def _block(
    source: RecordSource, report: SkipReport, block: list[str], first: int
) -> Iterator[Record]:
    text = "\n".join(block)
    if source.unit == "file":
        text += "\n"
        a, b = (int(len(text) * share) for share in source.part)
        text = text[a:b]
    yield from _judged(source, report, {"text": text}, first, "", len(block))


# -- SQuAD ----------------------------------------------------------------------------------------------------


def _squad(source: RecordSource, report: SkipReport) -> Iterator[Record]:
    """data -> paragraphs -> questions (Rajpurkar et al. 2016, 2018); a place counts the questions from 1."""
    line = read_whole(source.path)
    text = decode(line, source.path, source.encoding_errors, report)
    number = 0
    try:
        for article in parse_json(text)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    answers = [] if question.get("is_impossible") else question["answers"]
                    found = (paragraph["context"], question["question"], answers)
                    values = dict(zip(SQUAD, found, strict=True))
                    yield from _judged(source, report, values, number, "")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(
            f"not SQuAD's JSON: {type(e).__name__} {e}",
            place=f"{source.path}:{max(1, number)}",
            fix='{"data": [{"paragraphs": [{"context": …, "qas": [{"question": …, "answers": […]}]}]}]}',
        ) from None
