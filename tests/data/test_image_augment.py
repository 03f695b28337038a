"""Noise on pictures is a pure function of (seed, step, row); batches equal single pictures."""

import numpy as np
import pytest
from picture_files import pixels
from PIL import ImageEnhance, ImageOps

from qkv.data.images.augment import MOST_OPS, NUMBERS, Augment, rectangle, shifted, uniform
from qkv.data.images.ops import NAMES, OPS, image_of, randaugment
from qkv.data.images.shelf import Filler, Rounds, in_order, mean_and_std
from qkv.data.images.sources import Blob
from qkv.errors import ConfigError

ALL = Augment(crop=2, flip=True, randaugment=2, magnitude=20, erase=0.5)


def batch(n=24, size=9, channels=3):
    return np.stack([pixels(size, size, channels, seed=i) for i in range(n)])


def slow(config, x, u):
    """One picture (H, W, channels): what the batch must equal."""
    H, W, _ = x.shape
    if config.crop:
        wide = np.pad(x, ((config.crop,) * 2, (config.crop,) * 2, (0, 0)))
        y, x0 = (int(v * (2 * config.crop + 1)) for v in u[:2])
        x = wide[y : y + H, x0 : x0 + W]
    if config.flip and u[2] < 0.5:
        x = np.fliplr(x)
    return randaugment(x, u[8 : 8 + 2 * config.randaugment], config.magnitude)


@pytest.mark.parametrize("config", [ALL, Augment(crop=3), Augment(flip=True), Augment(randaugment=1)])  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_equals_its_pictures_one_by_one(config, channels):
    x, u = batch(channels=channels), uniform(3, 5, 24)
    kept = x.copy()
    made = config.bytes(x, u)
    np.testing.assert_array_equal(x, kept)  # the shelf's own bytes
    assert made.shape == x.shape and made.dtype == np.uint8
    for i in range(24):
        np.testing.assert_array_equal(made[i], slow(config, x[i], u[i]))


def test_noise_is_a_function_of_seed_and_step():
    a, b = (uniform(1, step, 8) for step in (4, 4))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (8, NUMBERS + 3) and NUMBERS == 8 + 2 * MOST_OPS
    assert not (a == uniform(1, 5, 8)).any() and not (a == uniform(2, 4, 8)).any()
    # a row's numbers do not depend on how many rows come after it
    np.testing.assert_array_equal(uniform(1, 4, 3), a[:3])


def test_nothing_is_asked_nothing_happens():
    x, u = batch(4), uniform(0, 0, 4)
    assert Augment().bytes(x, u) is x
    y = np.ones((4, 3, 9, 9), np.float32)
    assert (Augment().numbers(y, u) == 1).all()


def test_one_setting_does_not_change_the_noise_of_another():
    x, u = batch(8), uniform(0, 0, 8)
    once = Augment(flip=True).bytes(x, u)
    with_crop = Augment(flip=True, crop=1).bytes(x, u)
    flipped = (u[:, 2] < 0.5).nonzero()[0]
    assert 0 < len(flipped) < 8
    for i in range(8):
        want = shifted(x[i : i + 1], 1, u[i : i + 1, 0], u[i : i + 1, 1])[0]
        np.testing.assert_array_equal(with_crop[i], want[:, ::-1] if i in flipped else want)
        np.testing.assert_array_equal(once[i], x[i][:, ::-1] if i in flipped else x[i])


def test_the_shift_reaches_every_place():
    x = np.full((400, 3, 3, 1), 7, np.uint8)
    u = uniform(0, 0, 400)
    made = shifted(x, 1, u[:, 0], u[:, 1])
    assert {int((p == 7).sum()) for p in made} == {4, 6, 9}


def test_rectangles_lie_inside_and_have_the_areas_asked_for():
    u = uniform(0, 0, 300)[:, 3:7].tolist() + [[0, 0, 0, 0], [1 - 1e-9] * 4, [1 - 1e-9, 0, 0, 0]]
    for row in u:
        y, x, h, w = rectangle(28, 40, row)
        assert 0 <= y <= y + h <= 28 and 0 <= x <= x + w <= 40 and h >= 1 and w >= 1
        assert h * w <= 28 * 40 * 0.4  # a third, rounded
    areas = [h * w / (28 * 40) for _, _, h, w in (rectangle(28, 40, r) for r in u[:300])]
    assert 0.1 < np.mean(areas) < 0.19  # uniform on 0.02 … 1/3, less what was cut


def test_erasing_sets_the_mean_in_the_share_asked_for():
    u = uniform(0, 0, 400)
    made = Augment(erase=0.3).numbers(np.ones((400, 2, 12, 12), np.float32), u)
    hit = (made == 0).any((1, 2, 3))
    np.testing.assert_array_equal(hit, u[:, 3] < 0.3)
    assert ((made[:, 0] == 0) == (made[:, 1] == 0)).all()  # every channel


def enhanced(kind):
    return lambda image, v: kind(image).enhance(1 + 0.9 * v)


PILLOWS = {
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "solarize": lambda image, v: ImageOps.solarize(image, round(256 * (1 - abs(v)))),
    "posterize": lambda image, v: ImageOps.posterize(image, 8 - round(4 * abs(v))),
    "color": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "brightness": enhanced(ImageEnhance.Brightness),
    "sharpness": enhanced(ImageEnhance.Sharpness),
}


@pytest.mark.parametrize("name", PILLOWS)
@pytest.mark.parametrize("channels", [1, 3])
def test_tables_equal_what_pillow_builds_in_python(name, channels):
    flat = np.full((9, 9, channels), 77, np.uint8)
    few = np.where(pixels(12, 12, channels) < 128, 3, 200).astype(np.uint8)
    for x in (40 + pixels(20, 20, channels) // 2, pixels(30, 17, channels), flat, few):
        for v in (-1.0, -0.3, 0.0, 0.4, 1.0):
            want = np.asarray(PILLOWS[name](image_of(x), v)).reshape(x.shape)
            np.testing.assert_array_equal(OPS[name](x, v), want)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_operations_change_a_picture_by_their_strength(name, channels):
    x = 40 + pixels(20, 20, channels) // 2  # no channel is full: autocontrast has work
    strong, none = OPS[name](x, 1.0), OPS[name](x, 0.0)
    assert strong.shape == x.shape and strong.dtype == np.uint8
    if name not in ("autocontrast", "equalize"):  # those of no strength
        np.testing.assert_array_equal(none, x)
    same = name == "identity" or (name == "color" and channels == 1)
    assert (strong != x).any() != same


@pytest.mark.parametrize(
    "values",
    [{"crop": -1}, {"randaugment": 9}, {"magnitude": 31}, {"erase": 1.5}],
)
def test_settings_out_of_range(values):
    with pytest.raises(ConfigError):
        Augment(**values)


# -- shelves and rounds -------------------------------------------------------------------------------------


def fit(x):
    return x[:4, :4]


def test_a_shelf_that_is_full_decodes_again_what_it_could_not_hold(tmp_path):
    from picture_files import encoded

    x = [pixels(6, 6, seed=i) for i in range(5)]
    blobs = []
    for i, p in enumerate(x):
        (tmp_path / f"{i}").write_bytes(encoded(p))
        blobs.append(Blob(str(tmp_path / f"{i}")) if i % 2 else Blob("", raw=encoded(p)))
    shelves = []
    for room in (1 << 20, 2 * 48, 0):
        filler = Filler(fit, 3, room)
        for p, blob in zip(x, blobs, strict=True):
            filler.add(p, blob)
        shelves.append(filler.shelf())
    assert [len(s.held) for s in shelves] == [5, 2, 0] and [len(s) for s in shelves] == [5] * 3
    index = np.array([4, 0, 3])
    for shelf in shelves:
        np.testing.assert_array_equal(shelf.stack(index), np.stack([fit(x[i]) for i in index]))
        np.testing.assert_array_equal(shelf[4], fit(x[4]))
    assert shelves[0].whole is not None and shelves[1].whole is None


def test_rounds_show_each_picture_once_an_epoch_in_its_own_order():
    rounds = Rounds(10, 4, seed=3)
    assert rounds.batches_per_epoch == 3
    steps = [rounds.batch(s) for s in range(6)]
    assert [len(i) for _, i in steps] == [4, 4, 2] * 2 and [e for e, _ in steps] == [0] * 3 + [1] * 3  # fmt: skip
    epochs = [np.concatenate([i for e, i in steps if e == epoch]) for epoch in (0, 1)]
    assert all(sorted(e) == list(range(10)) for e in epochs) and (epochs[0] != epochs[1]).any()
    np.testing.assert_array_equal(Rounds(10, 4, seed=3).batch(5)[1], steps[5][1])
    assert [len(i) for i in in_order(10, 4)] == [4, 4, 2]
    with pytest.raises(ConfigError):
        Rounds(0, 4, 1)


def test_mean_and_deviation_of_the_channels():
    filler = Filler(lambda x: x, 3)
    x = batch(7, 5)
    for p in x:
        filler.add(p, None)
    mean, std = mean_and_std(filler.shelf())
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)) / 255, atol=5e-5)  # four digits
    np.testing.assert_allclose(std, x.std((0, 1, 2)) / 255, atol=5e-5)
    black = Filler(lambda x: x, 1)
    black.add(np.zeros((3, 3, 1), np.uint8), None)
    assert mean_and_std(black.shelf()) == ((0.0,), (0.001,))  # never divided by nothing
