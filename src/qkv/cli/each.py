"""A question about each of many texts or pictures: one that cannot be answered does not cost the others theirs."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..errors import DataError, InternalError, MissingError, OutOfMemoryError, QkvError
from ..messages import language
from .guard import as_error
from .out import emit, here, one_line, result, say

Ask = Callable[[list[str]], Sequence[Any]]
OWN = (DataError, MissingError, OutOfMemoryError)  # what is wrong with one text, not with the model
# where an error counts what it was given, from 0
PLACE = re.compile(r"^(prompt|source) \d+$")
SEEN = re.compile(r"^(text|question) \d+\b")


def answered(given: list[str], ask: Ask) -> Iterator[tuple[str, Any]]:
    """(text, its answer, or the error that it gives by itself); all are asked about at once, and halves where that fails."""
    found = attempt(given, ask)
    if not isinstance(found, QkvError):
        yield from zip(given, found, strict=True)
    elif len(given) == 1:
        yield given[0], found
    else:
        half = len(given) // 2
        yield from answered(given[:half], ask)
        yield from answered(given[half:], ask)


def attempt(given: list[str], ask: Ask) -> Sequence[Any] | QkvError:
    """The answers, or why there are none.  Raises what is no fault of the input."""
    try:
        return ask(given)
    except (QkvError, MemoryError, RuntimeError) as e:
        error = as_error(e)
        if isinstance(error, InternalError):
            raise
        return error


def over_texts(
    chunks: Iterable[list[str]],
    ask: Ask,
    show: Callable[[str, Any], None],
    *,
    json: bool,
    alone: bool,
) -> int:
    """Every text's answer through `show`, as it comes.

    A text that cannot be answered is told with its number, counted from 1; its line stays empty, with `json` an error, and
    the others go on: the exit code is that of the last one.  `alone`: it is the only one, and its error is raised."""
    before, code = 0, 0
    for chunk in chunks:
        for n, (text, answer) in enumerate(answered(chunk, ask), before + 1):
            if not isinstance(answer, QkvError):
                show(text, answer)
                continue
            error = numbered(answer, n)
            if alone or not isinstance(error, OWN):
                raise error
            code = error.exit_code
            tell(text, error, json)
            if not json:
                result("")
        sys.stdout.flush()
        before += len(chunk)
    return code


def tell(source: str, error: QkvError, json: bool) -> None:
    """One of several that failed: a line on stderr, and in JSON lines its place among the answers."""
    say(one_line(here(error.line(language())), 4096))
    if json:
        emit({"source": source, "error": error.to_dict()})


def numbered(e: QkvError, n: int) -> QkvError:
    """The error of a text that was asked about by itself, with its number."""
    e.seen, found = SEEN.subn(rf"\g<1> {n}", e.seen)
    if PLACE.match(e.place):
        e.place = PLACE.sub(rf"\g<1> {n}", e.place)
    elif isinstance(e, OWN) and not found and not e.place:
        e.place = f"text {n}"
    return e
