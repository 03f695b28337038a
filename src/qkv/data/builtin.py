"""The sources that need no file: "builtin:phrases/train" and "builtin:reverse/dev?n=1000&length=25&seed=0"."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ..errors import ConfigError, DataError, MissingError, did_you_mean
from .report import Pair, SkipReport

if TYPE_CHECKING:
    from .formats import Column
    from .sources import PairSource

SPLITS = {"phrases": ("train", "dev", "test", "hand")} | dict.fromkeys(
    ("copy", "reverse", "sort"), ("train", "dev", "test")
)
SIDES = {"phrases": ("ko", "en")}


def read_builtin(source: "PairSource", report: SkipReport) -> Iterator[Pair]:
    """Pairs of a built-in corpus; columns are 0, 1 and their names (ko, en; source, target).

    Raises MissingError QKV-020, DataError QKV-034 and ConfigError QKV-010 or 012."""
    place, _, query = source.path.partition("?")
    name, _, split = place.removeprefix("builtin:").partition("/")
    if name not in SPLITS:
        fix = did_you_mean(name, SPLITS)
        raise MissingError(f"no built-in corpus {name!r}", place=source.path, fix=fix)
    split = split or "train"
    if split not in SPLITS[name]:
        fix = did_you_mean(split, SPLITS[name])
        raise MissingError(f"{name} has no split {split!r}", place=source.path, fix=fix)
    if source.where:
        raise ConfigError(
            "a built-in corpus has no other columns", place=source.path, fix="remove where"
        )
    sides = SIDES.get(name, ("source", "target"))
    a, b = (_side(column, sides, source.path) for column in (source.source, source.target))
    for n, pair in enumerate(_pairs(name, split, query, source.path), 1):
        report.use()
        yield Pair(pair[a], pair[b], f"builtin:{name}/{split}:{n}")


def _side(column: "Column", sides: tuple[str, str], place: str) -> int:
    if column in (0, 1):
        return int(column)
    if column in sides:
        return sides.index(str(column))
    fix = did_you_mean(str(column), sides)
    raise DataError(f"no column {column!r}", place=place, fix=fix, code="QKV-034")


def _pairs(name: str, split: str, query: str, place: str) -> Iterator[tuple[str, str]]:
    from ..config import from_dict

    if name == "phrases":
        from .phrases import pairs

        return iter(pairs(split))
    from .synthetic import Task, examples

    try:
        values = {
            k: int(v)
            for k, v in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        }
    except ValueError as e:
        raise ConfigError(
            f"{query!r}: {e}", place=place, fix="write ?n=1000&length=25&seed=0", code="QKV-011"
        ) from None
    return examples(from_dict(Task, {"name": name, **values}, place=place), split)
