"""Pictures on the command line: each word and each line is the path of one."""

import sys
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from ..errors import QkvError
from .each import Ask, answered, tell
from .out import emit, result
from .use import flat

TOGETHER = 16  # pictures asked about in one go


def over_pictures(
    words: Iterable[str],
    ask: Ask,
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
                tell(path, answer, json)
            elif json:
                emit(answer)
            else:
                result(f"{flat(path)}\t{show(answer)}")
        sys.stdout.flush()
        together = list(islice(paths, TOGETHER))
    return code
