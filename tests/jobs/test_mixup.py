"""Pictures mixed in pairs, and steps at the end whose pictures are as they are."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import qkv
from qkv.errors import ConfigError
from qkv.jobs.images import ImagesJob
from qkv.learn.terms import term_loss, terms_of
from qkv.recipe import Recipe
from qkv.run import fresh_net

sys.path.append(str(Path(__file__).parents[1] / "data"))
from picture_files import class_folders, recipe  # noqa: E402


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "pets"
    return class_folders(root, n=20, size=(12, 12), high=60)


def job(pets, train=None, **objective):
    made = recipe(pets)
    made["objective"] = made["objective"] | objective
    made["train"] = made["train"] | (train or {})
    return ImagesJob.read(Recipe.read(made))


def test_a_mixed_picture_lies_between_two_and_its_label_says_where(pets):
    plain, mixing = (job(pets, mixup=share).stream() for share in (0.0, 0.5))
    moved = partners = 0
    for step in range(12):
        one, two = plain.batch(step), mixing.batch(step)
        assert one.mixed is None and torch.equal(one.label, two.label)
        x, y = one.pixels.double().flatten(1), two.pixels.double().flatten(1)
        shares = two.mixed.double()
        torch.testing.assert_close(shares.sum(1), torch.ones(len(x), dtype=torch.float64), atol=1e-6, rtol=0)  # fmt: skip
        for i in range(len(x)):
            if torch.allclose(x[i], y[i], atol=1e-5, rtol=0):  # mixed with itself, or not at all
                assert shares[i, two.label[i]] == pytest.approx(1.0, abs=1e-6)
                continue
            # y = λ x_i + (1 - λ) x_j for one j: λ by least squares, what remains is rounding
            ways = x[i] - x
            part = ((y[i] - x) * ways).sum(1) / ways.square().sum(1).clamp(min=1e-9)
            left = (x + part[:, None] * ways - y[i]).abs().amax(1)
            left[i] = torch.inf
            j = int(left.argmin())
            assert left[j] < 1e-5 and 0 <= part[j] <= 1
            want = F.one_hot(two.label[i], 2) * part[j] + F.one_hot(two.label[j], 2) * (1 - part[j])
            torch.testing.assert_close(shares[i], want, atol=1e-5, rtol=0)
            moved, partners = moved + 1, partners + int(two.label[i] != two.label[j])
    rows = 12 * len(x)
    assert abs(moved - rows / 2) < 4 * (rows / 4) ** 0.5  # half of them, four deviations
    assert partners > 0


def test_the_loss_is_that_of_both_labels(pets):
    """λ CE(a) + (1 - λ) CE(b), smoothed as torch's cross-entropy does it; float64."""
    made = job(pets, mixup=1.0, train={"smoothing": 0.2})
    net = fresh_net(made, None)[0].double().eval()
    batch = made.stream().batch(0)
    batch = replace(batch, pixels=batch.pixels.double(), mixed=batch.mixed.double())
    with torch.no_grad():
        (term,) = terms_of(net.loss_inputs(batch))
        logits = net.logits(batch)
    unsmoothed = (batch.mixed - 0.1) / 0.8
    want = F.cross_entropy(logits, unsmoothed, reduction="sum", label_smoothing=0.2)
    # labels are made in float32
    assert term_loss(term).smoothed.item() == pytest.approx(float(want), rel=1e-6)


def test_the_last_steps_see_pictures_as_they_are(pets):
    noise = dict(crop=2, flip=True, erase=1.0, mixup=1.0)
    steps = {"steps": 10, "accumulate": 2}
    ends = job(pets, no_augment=0.3, train=steps, **noise).stream()
    always = job(pets, train=steps, **noise).stream()
    never = job(pets, train=steps, crop=0, flip=False, erase=0.0).stream()
    for step, like in ((0, always), (13, always), (14, never), (19, never)):
        got, want = ends.batch(step), like.batch(step)
        assert torch.equal(got.pixels, want.pixels)
        assert (got.mixed is None) == (like is never)


def test_a_teacher_sees_mixed_pictures(pets, tmp_path):
    teacher = qkv.train(recipe(pets, name="teacher"), root=tmp_path)
    batch = job(pets, mixup=1.0, teacher=str(teacher.folder), train={"precision": "fp32"}).stream().batch(1)  # fmt: skip
    with torch.inference_mode():
        want = teacher.best().net.logits(batch).softmax(-1)
    torch.testing.assert_close(batch.taught, want, atol=0, rtol=0)


def test_a_run_with_both_learns(pets, tmp_path):
    values = recipe(pets)
    values["objective"] = values["objective"] | {"mixup": 0.5, "no_augment": 0.5}
    values["train"] = values["train"] | {"steps": 40, "eval_every": 20, "save_every": 20}
    run = qkv.train(values, root=tmp_path)
    assert run.to_dict()["best"]["dev/accuracy"] > 90
    kept = (run.folder / "config.toml").read_text("utf-8")
    assert "mixup = 0.5" in kept and "no_augment = 0.5" in kept


@pytest.mark.parametrize("key", ["mixup", "no_augment"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_shares_are_shares(pets, key, value):
    with pytest.raises(ConfigError, match=key) as e:
        job(pets, **{key: value})
    assert e.value.code == "QKV-012"


def test_the_noise_of_other_settings_is_what_it_was(pets):
    """Numbers for mixing are drawn apart from all others."""
    from qkv.data.images.augment import AUGMENT, NUMBERS, uniform
    from qkv.data.objectives.base import Draw

    old = Draw(3, 5, AUGMENT).uniform(7 * NUMBERS).reshape(7, NUMBERS)
    assert np.array_equal(uniform(3, 5, 7)[:, :NUMBERS], old)
