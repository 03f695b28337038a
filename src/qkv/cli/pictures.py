"""Pictures on the command line: each word and each line is the path of one."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ..errors import QkvError
from ..messages import language
from .out import emit, here, one_line, result, say
from .use import flat

TOGETHER = 16  # pictures asked about in one go


def over_pictures(
    words: Iterable[str],
    ask: Callable[[list[str]], Sequence[Any]],
    show: Callable[[Any], str],
    json: bool,
) -> int:
    """Every picture's answer after its path, or JSON lines.  Of several, one that cannot be used is told and the others
    go on; the exit code is that of the last such error.  A single one raises it."""
    paths = (word for word in words if word.strip())
    together = list(islice(paths, TOGETHER))
    only, code = len(together) == 1, 0
    while together:
        for path, answer in answered(together, ask):
            if isinstance(answer, QkvError):
                if only:
                    raise answer
                code = answer.exit_code
                say(one_line(here(answer.line(language())), 4096))
                if json:
                    emit({"source": path, "error": answer.to_dict()})
            elif json:
                emit(answer)
            else:
                result(f"{flat(path)}\t{show(answer)}")
        sys.stdout.flush()
        together = list(islice(paths, TOGETHER))
    return code


def answered(
    paths: list[str], ask: Callable[[list[str]], Sequence[Any]]
) -> Iterator[tuple[str, Any]]:
    """(path, answer or error); where one of several fails, each is asked about by itself."""
    try:
        yield from zip(paths, ask(paths), strict=True)
        return
    except QkvError as e:
        if len(paths) == 1:
            yield paths[0], e
            return
    for path in paths:
        yield from answered([path], ask)
