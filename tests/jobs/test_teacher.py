"""A teacher's answers, learned beside the labels: what is asked of it, what is lost, and who cannot teach."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import qkv
from qkv.errors import ConfigError, DataError, MissingError
from qkv.jobs.images import ImagesJob
from qkv.learn.loop import Step
from qkv.learn.terms import term_loss, terms_of
from qkv.recipe import Recipe
from qkv.run import fresh_net

sys.path.append(str(Path(__file__).parents[1] / "data"))
from picture_files import class_folders, idx_pair, pixels, recipe  # noqa: E402


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "pets"
    return class_folders(root, n=20, size=(12, 12), high=60)


@pytest.fixture(scope="module")
def teacher(pets):
    return qkv.train(recipe(pets, name="teacher"), root=pets.parent / "runs")


def taught(pets, teacher, **changes):
    made = recipe(pets, **changes)
    made["objective"] = made["objective"] | {"teacher": str(teacher), "erase": 0.5}
    made["train"] = made["train"] | {"precision": "fp32"}
    return made


def job(values):
    return ImagesJob.read(Recipe.read(values))


def test_the_teacher_sees_what_the_pupil_sees(pets, teacher):
    made = job(taught(pets, teacher.folder))
    stream, model = made.stream(), teacher.best()
    batch = stream.batch(3)
    with torch.inference_mode():
        want = model.net.logits(replace(batch, taught=None)).softmax(-1)
    # the same pictures and settings, so the same numbers: crop, mirror and what was erased
    torch.testing.assert_close(batch.taught, want, atol=0, rtol=0)
    again = job(taught(pets, teacher.folder)).stream().batch(3)
    assert torch.equal(again.taught, batch.taught) and torch.equal(again.pixels, batch.pixels)
    assert job(recipe(pets)).stream().batch(3).taught is None


def answers_of(net, batch, head):
    memory = net.encode(batch)
    first = net.head.classes(memory.summary)
    return first, first if head == "classes" else net.head.distilled(memory.states[:, 1])


@pytest.mark.parametrize("head", ["classes", "distilled"])
def test_the_loss_is_the_labels_and_the_cross_entropy_with_the_teacher(pets, teacher, head):
    values = taught(pets, teacher.folder)
    if head == "distilled":
        values["model"] = values["model"] | {"layout": "deit", "head": head}
    made = job(values)
    net, _, _ = fresh_net(made, None)
    net = net.double().eval()
    batch = made.stream().batch(0)
    batch = replace(batch, pixels=batch.pixels.double(), taught=batch.taught.double())
    with torch.no_grad():
        terms = terms_of(net.loss_inputs(batch))
        first, second = answers_of(net, batch, head)
    assert [t.name for t in terms] == ["classes", "taught" if head == "classes" else "distilled"]
    losses = [term_loss(t).smoothed.item() for t in terms]
    want = [
        float(F.cross_entropy(first, batch.label, reduction="sum")),
        float(F.cross_entropy(second, batch.taught, reduction="sum")),  # torch's own, as reference
    ]
    assert losses == pytest.approx(want, rel=1e-12)


def test_a_pupil_learns_although_its_labels_are_noise(tmp_path, pets, teacher):
    """All it knows is the teacher's."""
    noise = tmp_path / "noise"
    rng = np.random.default_rng(0)
    for i, path in enumerate(sorted(pets.rglob("*.png"))):
        to = noise / rng.choice(["cat", "dog"]) / f"{i}.png"
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())
    values = taught(noise, teacher.folder)
    values["train"] = values["train"] | {"steps": 40, "eval_every": 20, "save_every": 20}
    run = qkv.train(values, root=tmp_path / "runs")
    found = qkv.evaluate(qkv.load(run.folder / "last"), pets)  # the pictures with their own labels
    assert found["scores"]["accuracy"] > 90
    kept = (run.folder / "config.toml").read_text("utf-8")
    assert f'teacher = "{teacher.folder.resolve()}"' in kept


def test_a_teacher_that_changed_is_noticed(pets, tmp_path):
    """A run that goes on with another teacher would not be the run that was begun."""
    teacher = qkv.train(recipe(pets, name="teacher"), root=tmp_path / "teachers")

    def stop(event):
        if isinstance(event, Step):
            raise RuntimeError("killed")

    values = taught(pets, teacher.folder)
    with pytest.raises(RuntimeError):
        qkv.train(values, root=tmp_path / "runs", listen=stop)
    model = teacher.best()
    with torch.no_grad():
        model.net.head.classes.out.bias.add_(1.0)
    model.save(teacher.folder / "best")
    with pytest.raises(DataError) as e:
        qkv.train(values, root=tmp_path / "runs")
    assert e.value.code == "QKV-035" and e.value.place == str(teacher.folder / "best")


def test_the_order_of_its_classes_and_its_size_may_be_others(tmp_path, pets, teacher):
    values = taught(pets, teacher.folder)
    values["objective"] = values["objective"] | {"classes": ["dog", "cat"], "erase": 0.0}
    turned = job(values).stream().batch(2)
    values["objective"] = values["objective"] | {"classes": ["cat", "dog"]}
    assert torch.equal(turned.taught, job(values).stream().batch(2).taught.flip(1))
    values["model"] = values["model"] | {"image_size": 16}
    small = job(values).stream().batch(2)
    assert small.pixels.shape[-1] == 16 and small.taught.shape == (16, 2)


def test_who_cannot_teach(tmp_path, pets, teacher):
    with pytest.raises(MissingError):
        job(taught(pets, tmp_path / "nobody"))
    birds = class_folders(tmp_path / "birds", ("owl", "tit"), n=6, size=(12, 12))
    with pytest.raises(ConfigError, match="cat, dog apart, the pictures are of owl") as e:
        job(taught(birds, teacher.folder))
    assert e.value.code == "QKV-013"
    grey = idx_pair(tmp_path, pixels(20, 12, 12), [i % 2 for i in range(20)])
    values = taught(grey, teacher.folder)
    values["objective"] = values["objective"] | {"classes": ["cat", "dog"]}
    with pytest.raises(ConfigError, match="3 channels") as e:
        job(values)
    assert e.value.code == "QKV-013"
