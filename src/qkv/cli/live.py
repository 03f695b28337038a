"""What a training shows: a header, a live line, one table row per evaluation.  All of it on stderr.

On a terminal the live line is drawn by rich; elsewhere a plain line comes at most every five seconds."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..messages import t
from .out import duration, emit, here, pad, say, width

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..learn.loop import Evaluated, Event, Step

EVERY = 5.0  # seconds between plain lines
REDRAW = 0.1  # seconds between redraws of the live line
COLUMN = 11


class Live:
    """Listens to a training: `qkv.train(recipe, listen=live)`, used as a context so that the line goes away.

    With `json` every evaluation is also one JSON line on stdout."""

    def __init__(self, json: bool = False, interactive: bool | None = None) -> None:
        self.json = json
        self.interactive = sys.stderr.isatty() if interactive is None else interactive
        self.columns: list[str] = []
        self.drawn = -EVERY
        self.progress: Progress | None = None
        self.task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def __call__(self, event: "Event") -> None:
        match type(event).__name__:
            case "Header":
                self.header(event.lines)  # type: ignore[union-attr]
            case "Step":
                self.step(event)  # type: ignore[arg-type]
            case "Evaluated":
                self.evaluated(event)  # type: ignore[arg-type]
            case "Note":
                self.print(f"{t('note', '알림')}: {event.text}")  # type: ignore[union-attr]
            case "Finished":
                self.__exit__(None, None, None)
                self.finished(event)

    def header(self, lines: list[tuple[str, str]]) -> None:
        longest = max((width(name) for name, _ in lines), default=0)
        for name, value in lines:
            self.print(f"{pad(name, longest)}  {here(value)}")
        self.print("")

    def step(self, s: "Step") -> None:
        now = time.monotonic()
        if now - self.drawn < (REDRAW if self.interactive else EVERY):
            return
        self.drawn = now
        unit = t("tokens/s", "토큰/초") if s.unit == "tokens" else t("pictures/s", "장/초")
        text = (
            f"{t('loss', '손실')} {s.loss:.3f}  lr {s.lr:.1e}  "
            f"{s.tokens_per_second:,.0f} {unit}  {t('left', '남은 시간')} {duration(s.eta)}"
        )
        if self.interactive:
            self.draw(s.step, s.steps, text)
        else:
            say(f"{t('step', '스텝')} {s.step}/{s.steps}  {text}")

    def draw(self, step: int, steps: int, text: str) -> None:
        if self.progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self.progress = Progress(
                TextColumn(t("step", "스텝")),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True, highlight=False),
                auto_refresh=False,  # a redrawing thread would take time from training
                transient=True,
                expand=True,
            )
            self.progress.start()
            self.task = self.progress.add_task(text, total=steps)
        self.progress.update(self.task, completed=step, total=steps, description=text)
        self.progress.refresh()

    def evaluated(self, e: "Evaluated") -> None:
        averaged = any(k.startswith("average/") for k in e.metrics)
        named = {k.rsplit("/", 1)[-1]: v for k, v in e.metrics.items()}
        if not self.columns:
            self.columns = list(named)
            head = "".join(pad(c, COLUMN, right=True) for c in self.columns)
            self.print(pad(t("step", "스텝"), 9, right=True) + head)
        label = t("average", "평균") if averaged else f"{e.step:,}"
        cells = "".join(pad(number(named.get(c)), COLUMN, right=True) for c in self.columns)
        best = f"  ← {t('best', '최고')}" if e.best else ""
        self.print(f"{pad(label, 9, right=True)}{cells}{best}")
        self.drawn = time.monotonic()
        if self.json:
            self.stream({"event": "evaluated", "step": e.step, "best": e.best, **e.metrics})

    def stream(self, value: Mapping[str, Any]) -> None:
        """One JSON line; a reader that has left does not stop the training."""
        try:
            emit(value)
        except OSError:
            self.json = False

    def finished(self, event: Any) -> None:
        early = t(", stopped early", ", 조기 종료") if event.stopped_early else ""
        self.print(
            t(
                f"\ndone: {event.position.step:,} steps in {duration(event.seconds)}{early}",
                f"\n끝: {event.position.step:,}스텝, {duration(event.seconds)}{early}",
            )
        )
        if event.position.skipped:
            n = event.position.skipped
            self.print(
                t(
                    f"{n} steps were skipped: their loss or gradient was not finite",
                    f"손실이나 그래디언트가 유한하지 않은 {n}스텝을 건너뛰었습니다",
                )
            )

    def print(self, line: str) -> None:
        """A line that stays, above the live one."""
        if self.progress is not None:
            self.progress.console.print(line, markup=False, soft_wrap=True)
        else:
            say(line)


def number(value: float | None) -> str:
    """1.234, 12.34 or 1,234: four digits that matter."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:,.0f}"


class Transfer:
    """How far a download is: fetch's `progress(name, bytes so far, bytes in all)`."""

    def __init__(self) -> None:
        self.interactive = sys.stderr.isatty()
        self.drawn = -EVERY
        self.open = False

    def __call__(self, name: str, done: int, total: int | None) -> None:
        from .out import size

        now = time.monotonic()
        whole = total is not None and done >= total
        if now - self.drawn < (REDRAW if self.interactive else EVERY) and not whole:
            return
        self.drawn = now
        share = f"{done / total:4.0%} " if total else ""
        of = f" / {size(total)}" if total else ""
        text = f"{name}  {share}{size(done)}{of}"
        if not self.interactive:
            say(text)
            return
        try:
            sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if whole else ""))
            sys.stderr.flush()
        except OSError:
            pass
