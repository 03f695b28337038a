"""How verbs speak: results on stdout, messages on stderr, JSON where it was asked for, colour on a terminal only."""

import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import IO, Any

# what could move a terminal's cursor or forge a line: C0 and C1 controls, line and paragraph ends, bidirectional marks
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# the same, marks that turn a line's direction and halves of characters, inside a string of JSON
IN_JSON = re.compile(f"{CONTROL.pattern[:-1]}\u061c\u200e\u200f\ud800-\udfff]")
MAX_FIELD = 1024  # characters of foreign text in one message


def result(text: str) -> None:
    """A line of the answer."""
    print(text, file=sys.stdout)


def emit(value: Any) -> None:
    """One JSON document on one line; numbers that are not finite become "nan", "inf" and "-inf"."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    print(IN_JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text), file=sys.stdout)
    sys.stdout.flush()


def say(text: str = "") -> None:
    """A message for the person.  A closed stderr is no reason to stop working."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def plain(value: Any) -> Any:
    """The value as JSON knows it."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy, torch
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def here(text: str) -> str:
    """Paths below the working folder as a person there would write them."""
    try:
        base = os.getcwd()
    except OSError:  # the folder was deleted under us
        return text
    return text if base == os.sep else text.replace(base + os.sep, "")


def one_line(text: str, limit: int = MAX_FIELD) -> str:
    """Foreign text made safe to print: on one line, no control characters, not endless."""
    text = CONTROL.sub(
        lambda m: f"\\u{ord(m[0]):04x}" if ord(m[0]) > 255 else f"\\x{ord(m[0]):02x}", text
    )
    text = text.encode(
        "utf-8", "backslashreplace"
    ).decode()  # half a surrogate pair cannot be written
    return text if len(text) <= limit else f"{text[:limit]}…"


def colours(stream: IO[str]) -> bool:
    """Only on a terminal that can, and not with NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bold(text: str, stream: IO[str] | None = None) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colours(stream or sys.stdout) else text


def width(text: str) -> int:
    """Columns on a terminal: Hangul and Han take two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def pad(text: str, to: int, right: bool = False) -> str:
    space = " " * max(0, to - width(text))
    return space + text if right else text + space


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), gap: str = "  ") -> list[str]:
    """Rows as aligned lines; `right` names the columns of numbers."""
    if not rows:
        return []
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [pad(c, w, i in right) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(gap.join(cells).rstrip())
    return lines


def duration(seconds: float) -> str:
    """1:05, 12:34 or 2:03:04; – where it is not known."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def size(count: float) -> str:
    """Bytes for people: 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
