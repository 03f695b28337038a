"""The sources that need no file: "builtin:phrases/train", "builtin:reverse/dev?n=1000&length=25&seed=0",
"builtin:listops/train?n=10000&length=2000&least=500"."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..errors import ConfigError, DataError, MissingError, did_you_mean
from .report import Pair, SkipReport

if TYPE_CHECKING:
    from .formats import Column
    from .records import RecordSource
    from .sources import PairSource

THREE = ("train", "dev", "test")
SPLITS = {"phrases": (*THREE, "hand")} | dict.fromkeys(
    ("copy", "reverse", "sort", "listops", "match"), THREE
)
COLUMNS: dict[str, tuple[str, ...]] = {
    "phrases": ("ko", "en"),
    "listops": ("text", "label"),
    "match": ("text", "pair", "label"),
}
LONG = ("listops", "match")


def read_builtin(source: "PairSource", report: SkipReport) -> Iterator[Pair]:
    """Pairs of a built-in corpus; columns are 0, 1 and their names (ko, en; source, target).

    Raises MissingError QKV-020, DataError QKV-034 and ConfigError QKV-010 or 012."""
    corpus = Corpus.of(source.path, source.where)
    a, b = (corpus.column(c) for c in (source.source, source.target))
    for place, row in corpus.rows():
        report.use()
        yield Pair(row[a], row[b], place)


def read_builtin_records(
    source: "RecordSource", report: SkipReport
) -> Iterator[tuple[dict[str, str], str]]:
    """(values by the objective's names, place) of a built-in corpus; without `fields` its columns by their own names."""
    corpus = Corpus.of(source.path, source.where)
    names = source.fields or {name: name for name in corpus.columns}
    columns = {name: corpus.column(c) for name, c in names.items()}
    for place, row in corpus.rows():
        report.use()
        yield {name: row[i] for name, i in columns.items()}, place


@dataclass(frozen=True)
class Corpus:
    """ "builtin:name/split?query" """

    path: str
    name: str
    split: str
    query: str

    @classmethod
    def of(cls, path: str, where: dict[str, Any]) -> "Corpus":
        place, _, query = path.partition("?")
        name, _, split = place.removeprefix("builtin:").partition("/")
        if name not in SPLITS:
            fix = did_you_mean(name, SPLITS)
            raise MissingError(f"no built-in corpus {name!r}", place=path, fix=fix)
        split = split or "train"
        if split not in SPLITS[name]:
            fix = did_you_mean(split, SPLITS[name])
            raise MissingError(f"{name} has no split {split!r}", place=path, fix=fix)
        if where:
            fix = "remove where"
            raise ConfigError("a built-in corpus has no other columns", place=path, fix=fix)
        return cls(path, name, split, query)

    @property
    def columns(self) -> tuple[str, ...]:
        return COLUMNS.get(self.name, ("source", "target"))

    def column(self, called: "Column") -> int:
        if isinstance(called, int) and called < len(self.columns):
            return called
        if called in self.columns:
            return self.columns.index(str(called))
        fix = did_you_mean(str(called), self.columns)
        raise DataError(f"no column {called!r}", place=self.path, fix=fix, code="QKV-034")

    def rows(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(place, cells)."""
        made = _rows(self.name, self.split, self.query, self.path)
        for n, row in enumerate(made, 1):
            yield f"builtin:{self.name}/{self.split}:{n}", row


def _rows(name: str, split: str, query: str, place: str) -> Iterator[tuple[str, ...]]:
    from ..config import from_dict

    if name == "phrases":
        from .phrases import pairs

        return iter(pairs(split))
    try:
        values = {
            k: int(v)
            for k, v in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        }
    except ValueError as e:
        raise ConfigError(
            f"{query!r}: {e}", place=place, fix="write ?n=1000&length=25&seed=0", code="QKV-011"
        ) from None
    if name in LONG:
        from . import long

        return long.examples(from_dict(long.LongTask, {"name": name, **values}, place=place), split)
    from .synthetic import Task, examples

    return examples(from_dict(Task, {"name": name, **values}, place=place), split)
