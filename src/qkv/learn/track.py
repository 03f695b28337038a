"""Experiment tracking: what a run measured, in files that any tool can read.

    metrics.jsonl   the truth: one strict JSON object a line, {"loss": 2.5, "step": 100}, keys sorted, floats exact.
                    It holds no time and no machine, so the same run writes the same bytes, resumed or not.
    timing.jsonl    wall-clock figures (tokens/s, "time" in Unix seconds); a resumed run repeats steps here.
    status.json     the present state, replaced atomically.
    plots/*.png     curves drawn from metrics.jsonl.

JSON has no NaN or infinity: they are written as the strings "nan", "inf", "-inf", and read back as floats
(so a text of just that content would be read as a number).
"""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..config import from_dict, parse_json
from ..errors import ConfigError, DataError, MissingError, StoreError
from ..messages import t
from ..weights import store
from .sinks import Opener, Row, Sink, opener

WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
State = Literal["running", "done", "failed", "preempted"]


def _say(message: str) -> None:
    print(message, file=sys.stderr)


class Tracker:
    """Writes a run's metrics, and shows them in the sinks asked for ("tensorboard", "mlflow", or what opens one).

    A sink that fails is switched off with one message to `warn`; training goes on and metrics.jsonl is whole.
    Raises MissingError QKV-022 when a sink's package is not installed."""

    def __init__(
        self,
        folder: str | Path,
        sinks: Sequence[str | Opener] = (),
        warn: Callable[[str], None] = _say,
    ) -> None:
        self.folder = Path(folder)
        self.metrics = self.folder / "metrics.jsonl"
        self.timing = self.folder / "timing.jsonl"
        made = [opener(s) if isinstance(s, str) else s for s in sinks]
        self.openers = list(dict.fromkeys(made))  # asked for twice is shown once
        self.warn = warn
        self.open: dict[Opener, Sink] | None = (
            None  # None: not yet opened, so that a rewind may come first
        )
        with suppress(OSError):  # the first record says what is wrong with the place
            self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.metrics, self.timing):
            _mend(path)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one record.  Raises DataError for what is not a number, a text, true, false or null."""
        values = {k: _plain(k, v) for k, v in values.items()}
        self._sinks()  # before the append: the history must not hold this record already
        store.append(self.metrics, _line(step, values))
        self._each(lambda sink: sink.write([(step, _numbers(values))]))

    def log_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Append wall-clock figures, which differ from run to run, with the time."""
        values = {k: _plain(k, v) for k, v in values.items()}
        self._sinks()
        store.append(self.timing, _line(step, {**values, "time": time.time()}))
        self._each(lambda sink: sink.write([(step, _numbers(values))]))

    def size(self) -> int:
        """Bytes of metrics.jsonl, made durable: what a checkpoint notes, for `rewind`."""
        return store.append(self.metrics, b"", sync=True)

    def rewind(self, size: int) -> None:
        """Forget what was logged after a checkpoint.  Raises StoreError QKV-060 when the file cannot be that one."""
        self.close("preempted")
        if not size and not self.metrics.exists():
            return
        if not self.metrics.is_file():
            raise StoreError(
                f"is gone; the checkpoint was written at {size:,} bytes of it",
                place=self.metrics,
                fix="put it back, or start a new run from the weights",
            )
        with self.metrics.open("rb") as file:
            file.seek(max(size - 1, 0))
            if size and file.read(1) not in (b"\n", b""):
                raise StoreError(
                    f"byte {size:,} is not the end of a line",
                    place=self.metrics,
                    fix="the file was edited: put it back, or start a new run from the weights",
                )
        store.truncate(self.metrics, size)

    def close(self, state: State = "done") -> None:
        """Let go of the sinks; logging again opens them again."""
        self._each(lambda sink: sink.close(state))
        self.open = None

    def _sinks(self) -> None:
        """Open the sinks, each with the history so far."""
        if self.open is not None:
            return
        self.open = {}
        history = self._history() if self.openers else []
        for make in list(self.openers):
            try:
                self.open[make] = make(self.folder)
                self.open[make].write(history)
            except Exception as e:
                self._drop(make, e)

    def _each(self, act: Callable[[Sink], None]) -> None:
        for make, sink in list((self.open or {}).items()):
            try:
                act(sink)
            except Exception as e:  # whatever a foreign package raises, training is worth more
                self._drop(make, e)

    def _drop(self, make: Opener, error: Exception) -> None:
        self.openers.remove(make)
        if self.open is not None:
            self.open.pop(make, None)
        name = getattr(make, "__name__", repr(make))
        why = f"{type(error).__name__}: {error}".split("\n")[0][:300]
        self.warn(
            t(
                f"{name} is switched off for this run ({why}); metrics.jsonl goes on",
                f"이번 실행에서 {name} 기록을 끕니다 ({why}). metrics.jsonl 기록은 계속됩니다",
            )
        )

    def _history(self) -> list[Row]:
        metrics = read_metrics(self.metrics) if self.metrics.exists() else []
        timing = read_metrics(self.timing) if self.timing.exists() else []
        last = max((r["step"] for r in metrics), default=-1)
        kept = {r["step"]: r for r in timing if r["step"] <= last}  # of a repeated step the later
        rows = metrics + [{k: v for k, v in r.items() if k != "time"} for r in kept.values()]
        return [(r.pop("step"), _numbers(r)) for r in rows]


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a run stands.  `best` and `eta` (seconds left) are None while unknown; `updated` is Unix seconds."""

    state: State
    step: int
    of: int
    best: float | None = None
    eta: float | None = None
    pid: int = field(default_factory=os.getpid)
    updated: float = field(default_factory=time.time)

    def write(self, folder: str | Path) -> None:
        values = {k: _plain(k, v) for k, v in asdict(self).items()}
        store.write_file(Path(folder) / "status.json", _dump(values))

    @staticmethod
    def read(folder: str | Path) -> "Status | None":
        """None where there is no status.json.  Raises StoreError QKV-060 when it is damaged."""
        path = Path(folder) / "status.json"
        if not path.is_file():
            return None
        try:
            return from_dict(Status, _revive(parse_json(path.read_bytes().decode())), place=path)
        except (ValueError, AttributeError, ConfigError) as e:
            raise StoreError(f"not a status: {e}", place=path, fix="delete it") from None


def read_metrics(path: str | Path, *, numbers: bool = True) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl or timing.jsonl.  An unfinished last line, torn by a kill, is left out.

    numbers: the words nan, inf and -inf are numbers; not so among samples, where they are texts.

    Raises MissingError, or StoreError QKV-060 with the number of a damaged line."""
    path = Path(path)
    if not path.is_file():
        raise MissingError("no such file", place=path, fix="give a run's metrics.jsonl")
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            record = parse_json(line.decode())
            record = _revive(record) if numbers else dict(record)
            if type(record["step"]) is not int:
                raise ValueError("step is not a whole number")
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise StoreError(
                f"damaged record: {e}", place=f"{path}:{number}", fix="restore the file"
            ) from None
        records.append(record)
    return records


class Draw(Protocol):
    """What draws a plot, such as look.plots.curve_png; learn does not import look, so it is handed in."""

    def __call__(
        self, series: dict[str, list[tuple[float, float]]], *, title: str, ylabel: str
    ) -> bytes: ...


def plots(folder: str | Path, draw: Draw) -> list[Path]:
    """Draw FOLDER/plots/NAME.png for every metric; `train/loss` and `dev/loss` share loss.png.

    Numbers that are not finite are left out of the curves; metrics.jsonl has them."""
    folder = Path(folder)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in read_metrics(folder / "metrics.jsonl"):
        step = record.pop("step")
        for key, value in _numbers(record).items():
            name = key.rsplit("/", 1)[-1]
            if math.isfinite(value):
                curves.setdefault(name, {}).setdefault(key, []).append((step, value))
    made = []
    for name, series in curves.items():
        path = folder / "plots" / f"{re.sub(r'[^A-Za-z0-9_+-]', '_', name)}.png"
        store.write_file(path, draw(series, title=name, ylabel=name))
        made.append(path)
    return made


def _mend(path: Path) -> None:
    """Cut off half a line, which a kill left and the next record would be glued to."""
    if path.is_file() and not (data := path.read_bytes()).endswith(b"\n") and data:
        store.truncate(path, data.rfind(b"\n") + 1)


def _plain(key: str, value: Any) -> Any:
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise DataError(
        f"metric {key!r} is a {type(value).__name__}", fix="log a number or a text", code="QKV-033"
    )


def _line(step: int, values: Mapping[str, Any]) -> bytes:
    if type(step) is not int or step < 0 or "step" in values:
        raise DataError(f"step {step!r} of a record", fix="count steps from 0", code="QKV-033")
    return _dump({**values, "step": step})


def _dump(values: Mapping[str, Any]) -> bytes:
    """One line.  json writes a float as repr does, which reads back as the same bits."""
    finite = {
        k: repr(v) if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in values.items()
    }
    return json.dumps(finite, sort_keys=True, allow_nan=False).encode() + b"\n"


def _revive(record: Any) -> Any:
    return {k: WORDS.get(v, v) if isinstance(v, str) else v for k, v in record.items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        k: float(v)
        for k, v in values.items()
        if isinstance(v, (int, float)) and not isinstance(v, bool)
    }
