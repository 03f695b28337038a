"""Views of metrics.jsonl in other tools: TensorBoard, and MLflow on a local SQLite file.

A sink is never the truth: it is opened with the whole history and shows that, then what is written on.  So a
resumed run has no point twice and none missing, whatever was lost when the process died, and a damaged
view can simply be deleted.  Their packages are optional and imported late.
"""

import importlib.util
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..config import read_json
from ..errors import MissingError, did_you_mean
from ..weights import store

Row = tuple[int, Mapping[str, float]]  # step, numbers by name


class Sink(Protocol):
    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self, state: str) -> None: ...


class TensorBoard:
    """Event files in FOLDER/tensorboard; read them with `tensorboard --logdir runs`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step=0 hides the points of earlier event files, which the history then brings again
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=0, flush_secs=10)

    def write(self, rows: Sequence[Row]) -> None:
        for step, values in rows:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self, state: str) -> None:
        self.writer.close()


class MLflow:
    """One MLflow run per run folder, in mlflow.db beside it, which the runs of one place share.

    Read it with `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`.  No server is involved in writing."""

    BATCH = 1000  # MLflow refuses more metrics in one call
    EVERY = 5.0  # seconds between transactions: one takes 20 ms and more, which training should not wait for
    ENDINGS = {"running": "KILLED", "done": "FINISHED", "failed": "FAILED", "preempted": "KILLED"}

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # training reports to nobody
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports making its tables
        self.waiting: list[Any] = []
        self.sent = time.monotonic()
        folder = folder.resolve()
        self.client: Any = MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")
        note = folder / "mlflow.json"
        if note.is_file():  # points cannot be taken back, so the history goes into a fresh run
            self.client.delete_run(read_json(note)["run_id"])
        found = self.client.get_experiment_by_name("qkv")
        place = (folder.parent / "mlflow-artifacts").as_uri()
        experiment = found.experiment_id if found else self.client.create_experiment("qkv", place)
        made = self.client.create_run(experiment, run_name=folder.name)
        self.run_id: str = made.info.run_id
        store.write_file(note, b'{"run_id": "%s"}\n' % self.run_id.encode())

    def write(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow allows letters, digits and _ - . space : / in a name: chrf++ becomes chrf__
        self.waiting += [
            Metric(re.sub(r"[^\w\-. :/]", "_", name), value, now, step)
            for step, values in rows
            for name, value in values.items()
        ]
        if len(self.waiting) >= self.BATCH or time.monotonic() - self.sent >= self.EVERY:
            self._send()

    def _send(self) -> None:
        for i in range(0, len(self.waiting), self.BATCH):
            self.client.log_batch(self.run_id, metrics=self.waiting[i : i + self.BATCH])
        self.waiting, self.sent = [], time.monotonic()

    def close(self, state: str) -> None:
        self._send()
        self.client.set_terminated(self.run_id, status=self.ENDINGS[state])


Opener = Callable[[Path], Sink]
SINKS: dict[str, Opener] = {"tensorboard": TensorBoard, "mlflow": MLflow}  # name = its package


def opener(name: str) -> Opener:
    """What opens the sink of this name.  Raises MissingError QKV-022 before training starts, not in the midst of it."""
    if name not in SINKS:
        raise MissingError(f"no tracker {name!r}", fix=did_you_mean(name, SINKS), code="QKV-022")
    present = sys.modules[name] if name in sys.modules else importlib.util.find_spec(name)
    if present is None:
        raise MissingError(
            f"tracking with {name} needs a package that is not installed",
            fix="pip install 'qkv[track]', or leave it out of the recipe",
            code="QKV-022",
        )
    return SINKS[name]
