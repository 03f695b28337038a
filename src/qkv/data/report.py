"""What became of every line of a corpus: used, or skipped for a reason, at a place.

    lines = used + sum(skipped)

A run of neighbouring lines with one reason is one entry, so ten million empty lines cost nothing; entries beyond a few
megabytes wait in an unnamed temporary file until `lines()` hands them to whoever stores `skipped.jsonl`."""

import json
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..messages import t

REASONS = {
    "header": "머리줄",
    "filtered": "where 조건에 맞지 않음",
    "empty line": "빈 줄",
    "empty source": "원문이 비어 있음",
    "empty target": "번역문이 비어 있음",
    "missing column": "열이 모자람",
    "NUL character": "NUL 문자가 있음",
    "half a character": "반쪽 문자(짝 없는 서로게이트)가 있음",
    "long line": "한 줄이 1 MiB를 넘음",
    "long text": "max_chars보다 긴 글",
    "too many tokens": "max_tokens보다 긴 글",
    "no tokens": "토큰이 하나도 나오지 않음",
    "not encodable": "토크나이저가 처리하지 못함",
    "empty field": "빈 항목",
    "unknown label": "모르는 레이블",
    "not a number": "숫자가 아님",
    "tags do not fit": "태그가 글과 맞지 않음",
    "answer not there": "답이 그 자리에 없음",
    "bad turns": "대화 차례가 올바르지 않음",
    "nothing to learn": "배울 토큰이 없음",
    "alone in its group": "묶음에 짝이 없음",
    "no class folder": "분류 폴더 안에 없음",
    "unknown kind of file": "모르는 종류의 파일",
    "empty file": "빈 파일",
    "not a picture": "그림이 아님",
    "damaged picture": "손상된 그림",
    "empty picture": "크기가 0인 그림",
    "not of the size it is said to be": "적혀 있는 크기와 다른 그림",
    "too many pixels": "픽셀이 너무 많음",
    "too many bytes": "파일이 너무 큼",
    "unknown kind of pixel": "모르는 픽셀 형식",
    "cannot be opened": "열 수 없음",
    "link or device": "링크나 장치 파일",
    "unsafe name": "위험한 이름",
    "same name again": "같은 이름이 또 있음",
    "same id again": "같은 번호가 또 있음",
    "unknown picture": "모르는 그림의 상자",
    "no such picture": "그림 파일이 없음",
    "picture skipped": "건너뛴 그림의 상자",
    "unknown category": "모르는 분류",
    "crowd": "여럿을 한데 묶은 상자",
    "box is no box": "상자가 네 개의 수가 아님",
    "box not finite": "상자에 유한하지 않은 수가 있음",
    "box without area": "넓이가 없는 상자",
    "box outside the picture": "그림 밖의 상자",
    "malformed entry": "형식이 잘못된 항목",
}
IN_MEMORY = 4 << 20  # bytes of entries before they move to a temporary file
EXAMPLES = 3  # places per reason that a summary shows


def worded(reason: str) -> str:
    """A reason in the language of messages."""
    return t(reason, REASONS.get(reason, reason))


def counted(skipped: Mapping[str, int]) -> str:
    """{"header": 1, "empty line": 2} -> "1 header, 2 empty line"."""
    return ", ".join(f"{n:,} {reason}" for reason, n in skipped.items())


class Pair(NamedTuple):
    """One example: two sides of text and where it was read ("file:line")."""

    source: str
    target: str
    place: str


class SkipReport:
    """Counts what a reader reads, uses and skips; `read == used + sum(skipped.values())` between any two lines."""

    def __init__(self) -> None:
        self.read = 0
        self.used = 0
        self.replaced = 0  # lines used with U+FFFD in place of bad bytes
        self.shortened = 0  # examples used up to the most tokens a row may have
        self.skipped: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        # the run of neighbouring lines that may still grow
        self._file, self._first, self._next, self._reason = "", 0, 0, ""
        self._spool = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._spool.close)

    def use(self) -> None:
        self.read += 1
        self.used += 1

    def skip(self, file: str, line: int, reason: str) -> None:
        """This line was read and is not used."""
        self.read += 1
        self._count(file, line, reason)

    def drop(self, place: str, reason: str, lines: int = 1) -> None:
        """An example that counted as used turns out unusable later on, by its token count for instance."""
        file, _, first = place.rpartition(":")
        self.used -= lines
        for line in range(int(first), int(first) + lines):
            self._count(file, line, reason)

    def since(self, before: Mapping[str, int]) -> dict[str, int]:
        """{reason: how many} of what was skipped after `before`, a copy of `skipped`, was taken."""
        counts = {reason: n - before.get(reason, 0) for reason, n in self.skipped.items()}
        return {reason: n for reason, n in counts.items() if n}

    def _count(self, file: str, line: int, reason: str) -> None:
        self.skipped[reason] += 1
        if line == self._next and reason == self._reason and file == self._file:
            self._next += 1
            return
        if len(places := self.examples.setdefault(reason, [])) < EXAMPLES:
            places.append(f"{file}:{line}")
        self._flush()
        self._file, self._first, self._next, self._reason = file, line, line + 1, reason

    def _flush(self) -> None:
        if self._reason:
            to = {"to": self._next - 1} if self._next - 1 > self._first else {}
            entry = {"file": self._file, "line": self._first, **to, "reason": self._reason}
            self._spool.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._reason = ""

    def lines(self) -> Iterator[str]:
        """Every entry as one JSON line: {"file", "line", "to" where a run is longer than one, "reason"}."""
        self._flush()
        self._spool.seek(0)
        try:
            for raw in self._spool:
                yield raw.decode().rstrip("\n")
        finally:
            self._spool.seek(0, 2)

    def places(self) -> Iterator[tuple[str, int, str]]:
        """Every skipped line, one by one: (file, line, reason)."""
        for entry in map(json.loads, self.lines()):
            for line in range(entry["line"], entry.get("to", entry["line"]) + 1):
                yield entry["file"], line, entry["reason"]

    def left_out(self) -> dict[str, Any]:
        """{"skipped": {reason: how many}, "places": {reason: the first of them}}."""
        made = self.to_dict()
        return {"skipped": made["skipped"], "places": made["examples"]}

    def to_dict(self) -> dict[str, Any]:
        return {
            "lines": self.read,
            "used": self.used,
            "replaced": self.replaced,
            "shortened": self.shortened,
            "skipped": dict(sorted(self.skipped.items())),
            "examples": {k: list(v) for k, v in sorted(self.examples.items())},
        }

    def summary(self) -> str:
        """One line of totals and one per reason, in the current language."""
        out = [
            t(
                f"{self.read:,} lines: {self.used:,} used, {self.read - self.used:,} skipped",
                f"{self.read:,}줄 가운데 {self.used:,}줄 사용, {self.read - self.used:,}줄 건너뜀",
            )
        ]
        for reason, n in self.skipped.most_common():
            name = worded(reason)
            first = t("first", "처음")
            out.append(f"  {n:>9,}  {name} ({first}: {', '.join(self.examples[reason])})")
        if self.replaced:
            named = t(
                "used with bad bytes replaced by U+FFFD", "잘못된 바이트를 U+FFFD로 바꾸어 사용"
            )
            out.append(f"  {self.replaced:>9,}  {named}")
        if self.shortened:
            named = t("used, cut to max_tokens", "max_tokens까지 잘라서 사용")
            out.append(f"  {self.shortened:>9,}  {named}")
        return "\n".join(out)
