"""Laws of tracking: the metrics file is exact, append-only and repeatable; a sink never harms a run."""

import json
import math
import sys
import types
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkv.errors import DataError, MissingError, StoreError
from qkv.learn import sinks
from qkv.learn.track import Status, Tracker, plots, read_metrics
from qkv.messages import speak


class Fake:
    """A sink that remembers what it was shown; `broken` names the call that fails."""

    made: list["Fake"] = []
    broken = ""

    def __init__(self, folder):
        self.points, self.closed = [], None
        Fake.made.append(self)
        if Fake.broken == "open":
            raise OSError("disk on fire")

    def write(self, rows):
        self.points += [(step, k, v) for step, values in rows for k, v in values.items()]
        if Fake.broken == "write" and rows:
            raise OSError("database is locked\nmore")

    def close(self, state):
        self.closed = state
        if Fake.broken == "close":
            raise OSError("no")


@pytest.fixture(autouse=True)
def fresh():
    Fake.made, Fake.broken = [], ""
    speak("en")
    yield
    speak(None)


def run(folder, start=1, stop=6, sink=()):
    tracker = Tracker(folder, sink)
    for step in range(start, stop):
        tracker.log(step, {"train/loss": 1 / step, "lr": 0.1})
        tracker.log_timing(step, {"tokens_s": 100.0 * step})
        if step % 2 == 0:
            tracker.log(step, {"dev/loss": 2 / step})
    return tracker


def test_every_float_reads_back_as_the_same_bits(tmp_path):
    path = tmp_path / "metrics.jsonl"

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(), min_size=1, max_size=20))
    def law(values):
        path.unlink(missing_ok=True)
        Tracker(tmp_path).log(3, {f"m{i}": v for i, v in enumerate(values)})
        (record,) = read_metrics(path)
        back = np.array([record[f"m{i}"] for i in range(len(values))])
        want = np.array(values)
        same = back.view(np.int64) == want.view(np.int64)
        assert (same | (np.isnan(back) & np.isnan(want))).all()

    law()


def test_lines_are_strict_json_with_sorted_keys_and_true_values(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.log(7, {"z": math.nan, "a": -math.inf, "b": np.float32(0.1), "ok": True, "why": "x"})
    line = (tmp_path / "metrics.jsonl").read_bytes()
    assert line == (
        b'{"a": "-inf", "b": 0.10000000149011612, "ok": true, "step": 7, "why": "x", "z": "nan"}\n'
    )
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(record["z"]) and record["a"] == -math.inf
    for step, values in ((1, {"x": [1]}), (-1, {}), (True, {}), (1, {"step": 2})):
        with pytest.raises(DataError):
            tracker.log(step, values)
    assert (tmp_path / "metrics.jsonl").read_bytes() == line


def test_a_resumed_run_writes_the_same_bytes_after_a_kill_anywhere(tmp_path):
    run(tmp_path / "whole")
    whole = (tmp_path / "whole/metrics.jsonl").read_bytes()
    at_three = run(tmp_path / "sizes", stop=4).size()
    for torn in range(at_three, len(whole) + 1):
        folder = tmp_path / f"r{torn}"
        folder.mkdir()
        (folder / "metrics.jsonl").write_bytes(whole[:torn])
        (folder / "timing.jsonl").write_bytes(b'{"step": 1, "time": 0.5}\n{"step": 2, "ti')
        tracker = Tracker(folder)
        tracker.rewind(at_three)
        for step in (4, 5):
            tracker.log(step, {"train/loss": 1 / step, "lr": 0.1})
            tracker.log_timing(step, {"tokens_s": 1})
            if step == 4:
                tracker.log(step, {"dev/loss": 2 / step})
        assert (folder / "metrics.jsonl").read_bytes() == whole
        assert [r["step"] for r in read_metrics(folder / "timing.jsonl")] == [1, 4, 5]


def test_metrics_hold_no_time(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (
        tmp_path / "b/metrics.jsonl"
    ).read_bytes()
    assert all(r["time"] > 1e9 for r in read_metrics(tmp_path / "a/timing.jsonl"))


def test_a_rewind_that_cannot_be_right_is_refused(tmp_path):
    size = run(tmp_path).size()
    for wrong in (size + 1, size - 1):
        with pytest.raises(StoreError) as e:
            Tracker(tmp_path).rewind(wrong)
        assert e.value.code == "QKV-060"
    assert (tmp_path / "metrics.jsonl").stat().st_size == size
    Tracker(tmp_path / "new").rewind(0)
    with pytest.raises(StoreError, match="gone"):
        Tracker(tmp_path / "new").rewind(5)


def test_reading_leaves_out_a_torn_line_and_names_a_damaged_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes('{"step": 1, "u": "\u2028"}\n{"step": 2}'.encode())
    assert read_metrics(path) == [{"step": 1, "u": "\u2028"}]
    for bad in (b"{}", b"[]", b'{"step": NaN}', b'{"step": 1, "step": 2}', b"\xff", b"", b"[{}]"):
        path.write_bytes(b'{"step": 1}\n' + bad + b'\n{"step": 3}\n')
        with pytest.raises(StoreError, match="jsonl:2"):
            read_metrics(path)
    with pytest.raises(MissingError):
        read_metrics(tmp_path / "none.jsonl")


def test_a_sink_shows_each_point_once_however_often_the_run_is_resumed(tmp_path):
    run(tmp_path / "whole", sink=[Fake]).close()
    (whole,) = Fake.made
    assert whole.closed == "done" and len(whole.points) == 5 * 3 + 2
    size = run(tmp_path / "cut", stop=4, sink=[Fake]).size()
    run(tmp_path / "cut", start=4, stop=5, sink=[Fake])  # killed after the checkpoint
    tracker = Tracker(tmp_path / "cut", [Fake])
    tracker.rewind(size)
    run(tmp_path / "cut", start=4, sink=[Fake])
    assert sorted(Fake.made[-1].points) == sorted(whole.points)


@pytest.mark.parametrize("broken", ["open", "write", "close"])
def test_a_failing_sink_is_dropped_with_one_message_and_loses_nothing(tmp_path, broken):
    Fake.broken = broken
    said: list[str] = []
    tracker = Tracker(tmp_path / "x", [Fake], warn=said.append)
    for step in range(1, 4):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    tracker.log(4, {"loss": 1.0})
    tracker.close()
    assert len(said) == 1 and "Fake is switched off" in said[0] and "\n" not in said[0]
    assert len(Fake.made) == 1
    assert [r["step"] for r in read_metrics(tmp_path / "x/metrics.jsonl")] == [1, 2, 3, 4]


def test_an_absent_package_is_named_before_training(tmp_path, monkeypatch):
    for name in sinks.SINKS:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingError, match=r"pip install 'qkv\[track\]'") as e:
            Tracker(tmp_path, [name])
        assert e.value.code == "QKV-022"
    with pytest.raises(MissingError, match="did you mean 'tensorboard'"):
        Tracker(tmp_path, ["tensorbord"])


def test_tensorboard_shows_the_truth_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (qkv[track])")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = run(tmp_path, stop=4, sink=["tensorboard"])
    size = tracker.size()
    tracker.log(4, {"train/loss": 99.0, "dev/loss": math.nan})
    tracker.close()
    tracker = Tracker(tmp_path, ["tensorboard"])
    tracker.rewind(size)
    tracker.log(4, {"train/loss": 0.25, "dev/loss": math.inf})
    tracker.close()
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = {k: [(e.step, e.value) for e in shown.Scalars(k)] for k in shown.Tags()["scalars"]}
    third = float(np.float32(1 / 3))  # TensorBoard keeps float32
    assert points["train/loss"] == [(1, 1.0), (2, 0.5), (3, third), (4, 0.25)]
    assert points["dev/loss"] == [(2, 1.0), (4, math.inf)]
    assert [s for s, _ in points["tokens_s"]] == [1, 2, 3]


def fake_mlflow(monkeypatch):
    """As much of mlflow as the sink calls, with its rule about names and about the size of a call."""
    runs: dict[str, dict] = {}

    class Client:
        def __init__(self, tracking_uri):
            self.uri = tracking_uri

        def get_experiment_by_name(self, name):
            return types.SimpleNamespace(experiment_id="1") if runs else None

        def create_experiment(self, name, place):
            assert name == "qkv" and place.startswith("file://")
            return "1"

        def create_run(self, experiment, run_name):
            run_id = f"{len(runs):032x}"
            runs[run_id] = {"name": run_name, "uri": self.uri, "points": [], "state": "RUNNING"}
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

        def delete_run(self, run_id):
            runs[run_id]["state"] = "deleted"

        def log_batch(self, run_id, metrics):
            assert len(metrics) <= 1000 and not any("+" in m[0] for m in metrics)
            runs[run_id]["points"] += metrics

        def set_terminated(self, run_id, status):
            runs[run_id]["state"] = status

    mlflow, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    mlflow.MlflowClient, entities.Metric = Client, lambda *a: a
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return runs


def test_mlflow_gets_one_whole_run_in_a_local_file(tmp_path, monkeypatch):
    runs = fake_mlflow(monkeypatch)
    folder = tmp_path / "ko-en-1"
    tracker = Tracker(folder, ["mlflow"])
    for step in range(1200):
        tracker.log(step, {"dev/chrf++": float(step)})
    tracker.close("preempted")
    tracker = Tracker(folder, ["mlflow"])
    tracker.rewind(tracker.size())
    tracker.log(1200, {"dev/chrf++": 1200.0, "note": "text is not a point"})
    tracker.close("done")
    first, second = runs.values()
    assert (first["state"], second["state"]) == ("deleted", "FINISHED")
    assert second["name"] == "ko-en-1" and second["uri"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert [(p[0], p[1], p[3]) for p in second["points"]] == [
        ("dev/chrf__", float(s), s) for s in range(1201)
    ]


def test_the_real_mlflow_keeps_every_point(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (qkv[track])")
    folder = tmp_path / "run-1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracker = run(folder, stop=4, sink=["mlflow"])
        size = tracker.size()
        tracker.log(4, {"train/loss": 99.0})
        tracker.close("preempted")
        tracker = Tracker(folder, ["mlflow"])
        tracker.rewind(size)
        tracker.log(4, {"train/loss": 0.25, "dev/loss": math.nan})
        tracker.close()
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        (found,) = client.search_runs(["1"])
        points = client.get_metric_history(found.info.run_id, "train/loss")
    assert found.info.status == "FINISHED" and found.info.run_name == "run-1"
    assert [(m.step, m.value) for m in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]


def test_status_reads_back_what_was_written(tmp_path):
    assert Status.read(tmp_path) is None
    for best in (None, 31.25, math.nan):
        status = Status(state="running", step=5, of=10, best=best, eta=1.5)
        status.write(tmp_path)
        assert repr(Status.read(tmp_path)) == repr(status)  # by repr, as nan != nan
    json.loads((tmp_path / "status.json").read_bytes(), parse_constant=pytest.fail)
    for damage in (b"{", b"[]", b'{"state": "lost"}', b"\xff"):
        (tmp_path / "status.json").write_bytes(damage)
        with pytest.raises(StoreError, match="status"):
            Status.read(tmp_path)


def test_plots_hold_every_finite_point(tmp_path):
    tracker = run(tmp_path, stop=5)
    tracker.log(5, {"train/loss": math.nan, "../../x": 1.0, "event": "skipped"})
    drawn = {}

    def draw(series, *, title, ylabel):
        drawn[title] = series
        return f"png of {title}, {ylabel}".encode()

    made = plots(tmp_path, draw)
    assert drawn["loss"] == {
        "train/loss": [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)],
        "dev/loss": [(2, 1.0), (4, 0.5)],
    }
    assert {p.name for p in made} == {"loss.png", "lr.png", "x.png"}
    assert all(p.parent == tmp_path / "plots" for p in made)
    assert (tmp_path / "plots/loss.png").read_bytes() == b"png of loss, loss"
