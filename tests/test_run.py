"""`qkv.train` from a recipe: the same command goes on, the same recipe gives the same bytes."""

import json
import os
import signal

import pytest
import torch

import qkv
from qkv.errors import BusyError, ConfigError, DataError, MissingError, Preempted
from qkv.jobs import prepare
from qkv.jobs.pairs import held_out
from qkv.learn.checkpoint import saved_step
from qkv.learn.loop import Header, Note, Step, TrainConfig
from qkv.learn.track import Status, read_metrics
from qkv.models.interface import state_of
from qkv.recipe import Recipe
from qkv.runs import slim
from qkv.weights import disk, store
from qkv.weights.files import read_tensors, tensor_bytes

CLOCKS = {"timing.jsonl", "status.json", "env.json", store.LOCK}


def recipe(**more):
    values = {
        "name": "tiny",
        "data": {
            "train": {"path": "builtin:copy/train?n=80&length=4&symbols=5"},
            "dev": {"path": "builtin:copy/dev?n=8&length=4&symbols=5"},
            "max_tokens": 10,
        },
        "text": {"kind": "words"},
        "model": dict(d_model=8, n_heads=2, d_ff=16, encoder_layers=1, decoder_layers=1),
        "optim": {"lr": 0.01, "warmup": 4},
        "train": dict(
            steps=9, batch_tokens=64, precision="fp32", eval_every=4, save_every=3, log_every=2, average=2
        ),
        "eval": {"sentences": 2},
    }  # fmt: skip
    for key, value in more.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    return values


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """No waiting for the disk, and pictures that cost nothing: both are tested where they are made."""
    import qkv.look.plots

    monkeypatch.setattr(disk.fs, "fsync", lambda fd: None)
    monkeypatch.setattr(qkv.look.plots, "curve_png", lambda series, **how: repr(series).encode())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def content(folder):
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {n: p.read_bytes() for n, p in files.items() if n not in CLOCKS}


def stop_at(step):
    def listen(event):
        if isinstance(event, Step) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return listen


def test_a_run_is_a_folder_that_holds_all_of_it(tmp_path):
    events = []
    run = qkv.train(recipe(), root=tmp_path, listen=events.append)
    assert run.folder == tmp_path / "tiny-1" and isinstance(events[0], Header)
    files = content(run.folder)
    for name in ("best", "last", "average"):
        assert {f"{name}/model.safetensors", f"{name}/config.json", f"{name}/README.md"} <= set(
            files
        )
    assert {"config.toml", "data.json", "skipped.jsonl", "best.json", "samples.jsonl"} <= set(files)
    assert Status.read(run.folder).state == "done"
    assert [r["step"] for r in run.metrics if "dev/loss" in r] == [4, 8, 9]
    best = run.to_dict()["best"]
    losses = [r.get("dev/loss", r.get("average/dev/loss")) for r in run.metrics]
    assert best["dev/loss"] == min(x for x in losses if x is not None)
    assert run.best().translate("a b", max_new_tokens=4).source == "a b"
    assert {r["step"] for r in read_metrics(run.folder / "samples.jsonl")} == {4, 8, 9}
    text = b"".join(files.values())
    assert str(tmp_path).encode() not in text  # a run may be moved, and shared


def test_a_run_that_was_stopped_before_its_first_model_keeps_what_it_has(tmp_path, monkeypatch):
    """All there is of it is what a resume needs, so nothing may advise or do away with that."""
    with pytest.raises(Preempted):
        qkv.train(recipe(), {"train.log_every": 1}, root=tmp_path, listen=stop_at(1))
    folder = tmp_path / "tiny-1"
    before = content(folder)
    monkeypatch.chdir(tmp_path)
    for name in ("tiny-1", str(folder)):
        with pytest.raises(MissingError, match=f"go on with it: qkv train {name}") as e:
            qkv.load(name)
        assert e.value.code == "QKV-021"
        with pytest.raises(MissingError, match="no model yet"):
            slim(name)
    assert content(folder) == before


def test_a_finished_run_is_made_again_byte_for_byte_in_a_new_folder(tmp_path):
    first, second = (qkv.train(recipe(), root=tmp_path) for _ in range(2))
    assert second.folder.name == "tiny-2"
    assert content(first.folder) == content(second.folder)
    third = qkv.train(first.folder / "config.toml", root=tmp_path / "elsewhere")
    assert content(third.folder) == content(first.folder)


def test_the_same_command_goes_on_after_a_signal(tmp_path):
    whole = qkv.train(recipe(), {"train.log_every": 1}, root=tmp_path / "whole")
    for step in (1, 4, 7, 9):
        root = tmp_path / str(step)
        with pytest.raises(Preempted):
            qkv.train(recipe(), {"train.log_every": 1}, root=root, listen=stop_at(step))
        status = Status.read(root / "tiny-1")
        assert (status.state, status.step) == ("preempted", saved_step(root / "tiny-1"))
        again = qkv.train(recipe(), {"train.log_every": 1}, root=root)
        assert again.folder.name == "tiny-1"
        left, want = content(again.folder), content(whole.folder)
        assert {n for n in want if left.get(n) != want[n] and not n.startswith("resume/")} == set()
        assert left.keys() == want.keys()


def test_a_finished_run_learns_on_when_its_steps_are_raised(tmp_path):
    """As if it had been made for more steps from the start: this recipe's rate does not depend on where it ends."""
    whole = qkv.train(recipe(), root=tmp_path / "whole")
    short = qkv.train(recipe(), {"train.steps": 8}, root=tmp_path / "short")
    assert Status.read(short.folder).state == "done"
    longer = qkv.train(short.folder, {"train.steps": 9})
    assert longer.folder == short.folder and Status.read(longer.folder).of == 9
    got, want = content(longer.folder), content(whole.folder)
    kept = ("config.toml", "resume/weights.safetensors", "resume/moments.safetensors")
    assert [n for n in kept if got[n] != want[n]] == []
    for change, seen in (({"optim.lr": 1.0}, "only train.steps"), ({"train.steps": 1}, "larger")):
        with pytest.raises(ConfigError, match=seen):
            qkv.train(short.folder, change)


def test_a_run_that_ends_between_two_saves_learns_on_from_its_end(tmp_path):
    run = qkv.train(recipe(), {"train.steps": 2, "train.save_every": 200}, root=tmp_path)
    before = run.metrics
    longer = qkv.train(run.folder, {"train.steps": 4})
    assert longer.metrics[: len(before)] == before and longer.metrics[-1]["step"] == 4


def test_a_text_that_reads_nan_stays_a_text(tmp_path):
    """pandas writes it; three evaluations read and write samples.jsonl again."""
    path = tmp_path / "dev.tsv"
    path.write_text("nan\tinf\na\tb\n", "utf-8")
    values = recipe()
    values["data"]["dev"] = {"path": str(path)}
    run = qkv.train(values, {"train.eval_every": 3, "train.metric": "dev/chrf"}, root=tmp_path)
    rows = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text("utf-8").splitlines()]  # fmt: skip
    assert [r["step"] for r in rows] == [3, 3, 6, 6, 9, 9]
    assert {(r["source"], r["reference"]) for r in rows} == {("nan", "inf"), ("a", "b")}


def test_rows_longer_than_the_learned_positions_are_refused_before_the_first_step(tmp_path):
    heard = []
    values = recipe(model={"positions": "learned", "max_positions": 4})
    with pytest.raises(DataError) as e:
        qkv.train(values, root=tmp_path, listen=heard.append)
    assert e.value.code == "QKV-037" and "5 tokens" in str(e.value) and not heard
    qkv.train(recipe(model={"positions": "learned", "max_positions": 5}), {"data.max_tokens": 0}, root=tmp_path)  # fmt: skip


def test_fewer_boxes_miscounted_are_better():
    assert TrainConfig(metric="dev/miscount").low_is_best
    assert not TrainConfig(metric="dev/map50").low_is_best


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its config.toml lacks the settings that came later; they count as their defaults."""
    with pytest.raises(Preempted):
        qkv.train(recipe(), root=tmp_path, listen=stop_at(4))
    config = tmp_path / "tiny-1" / "config.toml"
    lines = config.read_text("utf-8").split("\n")
    config.write_text("\n".join(x for x in lines if not x.startswith("early_stopping")), "utf-8")
    assert qkv.train(recipe(), root=tmp_path).folder.name == "tiny-1"


class Dead(BaseException):
    pass


@pytest.mark.parametrize("n", [*range(1, 9), 14, 25, 36])
def test_a_run_that_dies_at_its_nth_write_is_made_whole_by_the_same_command(
    tmp_path, monkeypatch, n
):
    """The first renames make the folder itself; bench/kill.py draws the moments at random, with real kills."""
    want = whole(tmp_path)
    calls, rename = [], disk.fs.rename

    def dying(*paths):
        calls.append(paths)
        if len(calls) >= n:
            raise Dead
        rename(*paths)

    with monkeypatch.context() as m:
        m.setattr(disk.fs, "rename", dying)
        with pytest.raises(Dead):
            qkv.train(recipe(), root=tmp_path / "runs")
    run = qkv.train(recipe(), root=tmp_path / "runs")
    assert content(run.folder) == want
    assert (run.folder / "env.json").is_file() and Status.read(run.folder).state == "done"


KEPT = {}


def whole(tmp_path):
    """The content of the uninterrupted run, made once."""
    if not KEPT:
        KEPT.update(content(qkv.train(recipe(), root=tmp_path / "whole").folder))
    return KEPT


def test_another_recipe_and_new_are_other_folders(tmp_path):
    with pytest.raises(Preempted):
        qkv.train(recipe(), {"train.log_every": 1}, root=tmp_path, listen=stop_at(2))
    assert qkv.train(recipe(), {"seed": 2}, root=tmp_path).folder.name == "tiny-2"
    assert (
        qkv.train(recipe(), {"train.log_every": 1}, root=tmp_path, new=True).folder.name == "tiny-3"
    )


def test_a_changed_file_stops_a_resumed_run(tmp_path):
    path = tmp_path / "pairs.tsv"
    lines = [f"{'a b c d'[: 1 + 2 * (i % 4)]} {i % 5}\tx {i % 5}" for i in range(40)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    values = recipe(
        data={"train": {"path": str(path)}, "dev": {"path": str(path)}}, train={"log_every": 1}
    )
    notes = []

    def listen(event):
        notes.append(event)
        stop_at(2)(event)

    with pytest.raises(Preempted):
        qkv.train(values, root=tmp_path / "runs", listen=listen)
    assert any(isinstance(e, Note) and "dev" in e.text for e in notes)  # dev occurs in train
    before = content(tmp_path / "runs")
    path.write_text("\n".join(lines[1:] + lines[:1]) + "\n", "utf-8")
    with pytest.raises(DataError) as e:
        qkv.train(values, root=tmp_path / "runs")
    assert e.value.code == "QKV-035" and str(path) in e.value.place
    after = content(tmp_path / "runs")
    assert {n for n in before if before[n] != after[n]} <= {
        "tiny-1/status.json",
        "tiny-1/" + store.LOCK,
    }
    path.write_text("\n".join(lines) + "\n", "utf-8")  # put back, with a new time: goes on
    assert qkv.train(values, root=tmp_path / "runs").folder.name == "tiny-1"


def test_two_trainings_do_not_share_a_folder(tmp_path):
    def listen(event):
        if isinstance(event, Step) and event.step == 2:
            with pytest.raises(BusyError) as e:
                qkv.train(recipe(), root=tmp_path)
            assert e.value.code == "QKV-062" and str(os.getpid()) in e.value.seen
            seen.append(e.value)

    seen = []
    qkv.train(recipe(), root=tmp_path, listen=listen)
    assert len(seen) == 1 and [p.name for p in tmp_path.iterdir()] == ["tiny-1"]


@pytest.mark.parametrize("folder", ["tiny-1", "tiny-1/last"])
def test_fine_tuning_starts_from_those_weights(tmp_path, folder):
    first = qkv.train(recipe(), root=tmp_path)
    start = qkv.load(tmp_path / folder, device="cpu")
    tuned = {
        "from": str(tmp_path / folder),
        "name": "tuned",
        "optim": {"lr": 1e-30, "warmup": 0},
        "train": {"steps": 1, "average": 0, "save_every": 1},
    }
    run = qkv.train(recipe(seed=5, **tuned), root=tmp_path)
    kept = read_tensors(run.folder / "last" / "model.safetensors")
    assert tensor_bytes(kept) == tensor_bytes(state_of(start.net))
    assert (run.folder / "tokenizer" / "tokenizer.json").read_bytes() == (
        first.folder / "tokenizer" / "tokenizer.json"
    ).read_bytes()


def test_without_dev_a_share_is_held_out_and_no_source_is_on_both_sides(tmp_path):
    values = recipe(
        data={"train": {"path": "builtin:copy/train?n=400&length=3&symbols=5"}, "holdout": 0.2}
    )
    del values["data"]["dev"]
    data = prepare(Recipe.read(values))
    train, dev = ({p.source for p in c.pairs} for c in (data.train, data.dev))
    assert train and dev and not train & dev and data.leak == 0
    assert len(data.train) + len(data.dev) == 400  # repeated sources included: none is lost
    assert 0.05 < len(dev) / len(train | dev) < 0.4
    assert all(held_out(p.source, 0.2) for p in data.dev.pairs)
    # a larger share holds out all that a smaller one did
    assert all(held_out(p.source, 0.5) for p in data.dev.pairs)


def test_too_few_pairs_to_hold_out_are_named(tmp_path):
    path = tmp_path / "one.tsv"
    path.write_text("a\tb\n", "utf-8")
    values = recipe(data={"train": {"path": str(path)}})
    del values["data"]["dev"]
    with pytest.raises(DataError) as e:
        qkv.train(values, root=tmp_path / "runs")
    assert e.value.code == "QKV-032" and "holdout" in e.value.fix
    assert not list((tmp_path / "runs").iterdir()), "no run began, and yet a folder was left"


@pytest.mark.parametrize(
    "wrong,code",
    [
        ({"train.metric": "dev/blue"}, "QKV-013"),
        ({"train.metric": "dev/ter"}, "QKV-013"),
        ({"train.stpes": 3}, "QKV-010"),
        ({"model.d_modle": 3}, "QKV-010"),
        ({"seed": -1}, "QKV-012"),
        ({"name": "a/b"}, "QKV-012"),
        ({"data.holdout": 0.0}, "QKV-012"),
        ({"data.train": "train.tsv"}, "QKV-011"),
        ({"data.dev": False}, "QKV-011"),
        ({"data.max_tokens": -1}, "QKV-012"),
        ({"eval.metrics": ["blue"]}, "QKV-012"),
        ({"eval.tokenize": "13b"}, "QKV-012"),
        ({"eval.sentences": -1}, "QKV-012"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_refused_before_a_folder_is_made(tmp_path, wrong, code):
    with pytest.raises(ConfigError) as e:
        qkv.train(recipe(), wrong, root=tmp_path)
    assert e.value.code == code and e.value.fix
    assert not list(tmp_path.iterdir())


def test_what_is_best_may_be_a_score(tmp_path):
    run = qkv.train(recipe(), {"train.metric": "dev/chrf", "train.average": 0}, root=tmp_path)
    scores = [r["dev/chrf"] for r in run.metrics if "dev/chrf" in r]
    assert run.to_dict()["best"]["dev/chrf"] == max(scores)


def test_resolved_recipes_read_back_the_same(tmp_path):
    run = qkv.train(recipe(), {"train.steps": 1, "train.average": 0}, root=tmp_path)
    again = Recipe.read(run.folder / "config.toml")
    assert again == Recipe.read(recipe(), {"train.steps": 1, "train.average": 0})


def test_environment_and_skips_are_written_down(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("a b\tc d\nno tab here\n" + "a\tb\n" * 20, "utf-8")
    source = {"path": str(path)}
    run = qkv.train(
        recipe(data={"train": source, "dev": source}, train={"steps": 1, "average": 0}),
        root=tmp_path,
    )
    env = json.loads((run.folder / "env.json").read_text("utf-8"))
    assert env["torch"] == torch.__version__ and env["threads"] == 1
    assert '"line": 2' in (run.folder / "skipped.jsonl").read_text("utf-8")
    report = json.loads((run.folder / "data.json").read_text("utf-8"))["report"]
    assert report["lines"] == report["used"] + sum(report["skipped"].values())
    assert report["skipped"] == {"missing column": report["lines"] // 22}  # of train, and of dev


def test_a_device_that_is_not_here_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'tpu' is not here") as e:
        qkv.train(recipe(), root=tmp_path, device="tpu")
    assert e.value.code == "QKV-012"
