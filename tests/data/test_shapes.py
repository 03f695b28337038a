"""Circles, squares and triangles made here, and noise on pictures with boxes."""

import numpy as np
import pytest

from qkv.data.images import shapes
from qkv.data.images.boxes import NUMBERS, DetectConfig
from qkv.data.images.coco import read_boxes
from qkv.data.images.shapes import KINDS, Shapes, picture
from qkv.data.images.sources import ImageSource
from qkv.data.report import SkipReport
from qkv.errors import QkvError

SMALL = Shapes(size=32)


def test_a_picture_depends_on_its_key_alone():
    for i in range(5):
        one, other = picture(SMALL, "train", i), picture(Shapes(n=7, size=32), "train", i)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    drawn = {picture(SMALL, s, i)[0].tobytes() for s in shapes.SPLITS for i in range(20)}
    assert len(drawn) == 60  # no picture of one split is in another
    assert not np.array_equal(
        picture(SMALL, "train", 0)[0], picture(Shapes(size=32, seed=1), "train", 0)[0]
    )


@pytest.mark.parametrize("kind", range(3), ids=KINDS)
@pytest.mark.parametrize("box", [(3.0, 5.0, 15.0, 17.0), (0.0, 0.0, 31.0, 31.0)], ids=str)
def test_a_box_is_the_least_around_its_figure(kind, box):
    """A triangle's pointed end is thinner than a pixel, hence one pixel of play."""
    for upside_down in (False, True):
        y, x = np.nonzero(shapes._inside(kind, box, 32, upside_down))
        found = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert np.abs(np.array(found) - box).max() <= 1


def test_figures_differ_in_their_pixels():
    area = [shapes._inside(kind, (4.0, 4.0, 28.0, 28.0), 32, False).sum() for kind in range(3)]
    assert area[1] > area[0] > area[2]  # 1, π/4, 1/2 of the box


def test_pictures_hold_one_to_most_things_that_can_be_seen():
    for i in range(60):
        pixels, corners, kinds = picture(Shapes(size=48, most=3), "dev", i)
        assert pixels.shape == (48, 48, 3) and pixels.dtype == np.uint8
        assert 1 <= len(corners) == len(kinds) <= 3
        assert (corners >= 0).all() and (corners <= 48).all()
        sides = corners[:, 2:] - corners[:, :2]
        assert (sides >= 48 * shapes.SMALLEST - 1).all() and (
            sides <= 48 * shapes.LARGEST + 1
        ).all()
        boxes = [tuple(b) for b in corners.tolist()]
        pairs = [(a, b) for j, a in enumerate(boxes) for b in boxes[:j]]
        assert all(shapes._hidden(a, b) <= shapes.HIDDEN for a, b in pairs)


@pytest.mark.parametrize(
    "path, code, said",
    [
        ("builtin:shapez/train", "QKV-020", "shapes/train"),
        ("builtin:shapes/tset", "QKV-020", "shapes/test"),
        ("builtin:shapes/train?size=8", "QKV-012", "16 … 1,024"),
        ("builtin:shapes/train?sizes=32", "QKV-010", "size"),
        ("builtin:shapes/train?size=big", "QKV-011", "size=96"),
    ],
)
def test_a_wrong_name_is_told(path, code, said):
    with pytest.raises(QkvError) as e:
        list(shapes.pictures(path, SkipReport()))
    assert e.value.code == code and said in f"{e.value.seen} {e.value.fix}"


def test_they_are_read_as_a_source_with_boxes():
    source, report = ImageSource(path="builtin:shapes/train?n=3&size=32"), SkipReport()
    assert source.kind == "builtin" and source.paths == ()
    names, found = read_boxes(source, report)
    rows = list(found)
    assert names == KINDS and len(rows) == 3 and report.used == 3
    assert rows[2].place == "builtin:shapes/train?n=3&size=32:3"
    # a model's classes may stand in another order, and need all of these
    other = ("triangle", "moon", "circle", "square")
    _, again = read_boxes(source, SkipReport(), other)
    for a, b in zip(rows, again, strict=True):
        assert [KINDS[c] for c in a.classes] == [other[c] for c in b.classes]
    with pytest.raises(QkvError, match="circle, square, triangle"):
        read_boxes(source, SkipReport(), ("cat",))[1].__next__()
    grey = next(iter(read_boxes(source, SkipReport(), (), 1)[1]))
    assert grey.pixels.shape == (32, 32, 1)


# -- noise --------------------------------------------------------------------------------------------------


def marked(size=(40, 60)):
    """A black picture with one white box at (12, 8) … (30, 24), as parts of it."""
    H, W = size
    x = np.zeros((H, W, 3), np.uint8)
    x[8:24, 12:30] = 255
    corners = np.array([[12 / W, 8 / H, 30 / W, 24 / H]], np.float32)
    return x, corners, np.array([1])


def white(x):
    """The corners of what is white, as parts of the picture."""
    y, at = np.nonzero(x[..., 0] > 127)
    H, W = x.shape[:2]
    return np.array([at.min() / W, y.min() / H, (at.max() + 1) / W, (y.max() + 1) / H])


@pytest.mark.parametrize(
    "config",
    [
        DetectConfig(flip=True),
        DetectConfig(scale=0.5),
        DetectConfig(crop=1.0),
        DetectConfig(flip=True, scale=0.6, crop=0.7),
    ],
    ids=["flip", "scale", "crop", "all"],
)
def test_boxes_move_with_what_they_frame(config):
    g, seen = np.random.default_rng(0), set()
    for _ in range(40):
        x, corners, classes = config.noised(*marked(), g.random(NUMBERS))
        seen.add(x.tobytes())
        if not len(corners):
            continue  # its centre was cut off
        # resizing rounds to whole pixels of at least 20
        assert np.abs(corners[0] - white(x)).max() < 1 / min(x.shape[:2]) + 1e-6
        assert classes.tolist() == [1] and (corners >= 0).all() and (corners <= 1).all()
    assert len(seen) > 1


def test_without_noise_nothing_changes():
    x, corners, classes = marked()
    made = DetectConfig().noised(x, corners, classes, np.random.default_rng(0).random(NUMBERS))
    assert all(np.array_equal(a, b) for a, b in zip(made, (x, corners, classes), strict=True))


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"crop": 1.5}, {"shortest": 64, "longest": 32}])
def test_settings_that_cannot_be_are_told(wrong):
    with pytest.raises(QkvError):
        DetectConfig(**wrong)
