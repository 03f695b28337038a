"""COCO's boxes: every picture and every annotation is used or named with its list and number."""

import json
import os
import unicodedata

import numpy as np
import pytest
from picture_files import archive, encoded, pixels

from qkv.data.images.coco import light, read_boxes
from qkv.data.images.sources import ImageSource, entries, read_pictures
from qkv.data.report import REASONS, SkipReport
from qkv.errors import ConfigError, DataError

CATEGORIES = [{"id": 7, "name": "cell"}, {"id": 2, "name": "plate"}]


def box(image, bbox, category=7, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox} | more


def coco(images, annotations, categories=CATEGORIES):
    listed = [{"id": i, "file_name": name} for i, name in images]
    return {"images": listed, "annotations": annotations, "categories": categories}


def write(folder, values, names=("a.png", "b.png"), below="images"):
    (folder / below).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / below / name).write_bytes(encoded(pixels(10, 20, seed=seed)))
    path = folder / "annotations.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def read(path, classes=(), **how):
    report = SkipReport()
    names, found = read_boxes(ImageSource(path=str(path), **how), report, classes)
    made = list(found)
    assert report.read == report.used + sum(report.skipped.values())
    assert all(reason in REASONS for reason in report.skipped)
    return names, made, report


def test_boxes_and_their_classes(tmp_path):
    annotations = [box(1, [2, 3, 4, 5]), box(1, [0.5, 0, 19.5, 10], 2), box(2, [1, 1, 1, 1])]
    path = write(tmp_path, coco([(1, "a.png"), (2, "b.png")], annotations))
    names, (a, b), report = read(path)
    assert names == ("plate", "cell")  # by id
    assert a.corners.tolist() == [[2, 3, 6, 8], [0.5, 0, 20, 10]] and a.classes.tolist() == [1, 0]
    assert b.corners.shape == (1, 4) and b.number == 2
    assert a.pixels.shape == (10, 20, 3) and report.used == 5
    np.testing.assert_array_equal(a.pixels, pixels(10, 20, seed=0))


def test_an_archive_and_a_folder_of_pictures_elsewhere_are_the_same(tmp_path):
    values = coco([(1, "a.png"), (2, "b.png")], [box(1, [2, 3, 4, 5])])
    path = write(tmp_path / "x", values)
    raw = {p.relative_to(tmp_path / "x").as_posix(): p.read_bytes() for p in (tmp_path / "x").rglob("*.*")}  # fmt: skip
    packed = archive(tmp_path / "x.tar", {f"./{n}": raw[n] for n in sorted(raw, reverse=True)})
    (tmp_path / "y").mkdir()
    moved = path.rename(tmp_path / "y" / "boxes.json")
    found = [read(packed), read(moved, images=str(tmp_path / "x" / "images"))]
    for _, made, report in found:
        assert [m.corners.tolist() for m in made] == [[[2, 3, 6, 8]], []]
        assert not report.skipped
        assert made[0].blob.read() == raw["images/a.png"]


@pytest.mark.parametrize("kind", [int, float, str])
def test_a_picture_of_another_size_than_its_boxes_were_drawn_on_is_left_out(kind, tmp_path):
    """Resized since, or turned by a camera's note: trained on, its boxes would be wrong in silence."""
    values = coco([(1, "a.png"), (2, "b.png")], [box(1, [2, 3, 4, 5]), box(2, [2, 3, 4, 5])])
    values["images"][0] |= {"width": kind(10), "height": kind(20)}  # the file has 20 x 10
    values["images"][1] |= {"width": kind(20), "height": kind(10)}
    _, made, report = read(write(tmp_path, values))
    assert [m.number for m in made] == [2]
    assert dict(report.skipped) == {"not of the size it is said to be": 1, "picture skipped": 1}


@pytest.mark.parametrize("side", ["wide", [20], {}, "1" * 400 + "x"])
def test_a_size_that_is_no_number_is_a_bad_entry(side, tmp_path):
    values = coco([(1, "a.png"), (2, "b.png")], [box(2, [2, 3, 4, 5])])
    values["images"][0]["width"] = side
    _, made, report = read(write(tmp_path, values))
    assert [m.number for m in made] == [2] and dict(report.skipped) == {"malformed entry": 1}


def test_names_are_the_same_however_their_letters_are_composed(tmp_path):
    """macOS writes 사진 as six letters, everybody else as two syllables."""
    apart, whole = (unicodedata.normalize(form, "사진.png") for form in ("NFD", "NFC"))
    assert apart != whole
    for said, there in ((apart, whole), (whole, apart)):
        categories = [{"id": 7, "name": said}, {"id": 2, "name": "plate"}]
        values = coco([(1, said)], [box(1, [2, 3, 4, 5])], categories)
        path = write(tmp_path / said / there, values, (there,))
        names, made, _ = read(path)
        assert len(made) == 1 and names == ("plate", whole)
        raw = {p.relative_to(path.parent).as_posix(): p.read_bytes() for p in path.parent.rglob("*.*")}  # fmt: skip
        assert len(read(archive(path.parent.with_suffix(".tar"), raw))[1]) == 1


def test_an_archive_is_not_held_in_memory(tmp_path):
    path = write(tmp_path / "x", coco([(1, "a.png")], []))
    raw = {p.relative_to(tmp_path / "x").as_posix(): p.read_bytes() for p in path.parent.rglob("*.*")}  # fmt: skip
    packed = archive(tmp_path / "x.tar", raw)
    held = [light(e) for e in entries(ImageSource(path=str(packed)))]
    assert [e.raw is None for e in held] == [e.name != "annotations.json" for e in held]
    assert len(read(packed)[1]) == 1


def test_names_that_are_not_utf8_can_be_told(tmp_path):
    """Folders from an old archive; a name in JSON may even be half a character."""
    folder = os.fsencode(tmp_path) + b"/cat"
    os.mkdir(folder)
    for name in (b"\xb0\xa1.txt", b"\xb0\xa2.txt"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(b"no picture")
    (tmp_path / "cat" / "a.png").write_bytes(encoded(pixels(4, 4)))
    report = SkipReport()
    found = list(read_pictures(ImageSource(path=str(tmp_path)), report, 3))
    told = "".join(report.lines())
    assert len(found) == 1 and told.encode() and r"\xb0\xa1.txt" in told.replace("\\\\", "\\")
    values = coco([(1, "a\ud83d.png"), (2, "a.png")], [box(2, [0, 0, 2, 2])])
    _, made, report = read(write(tmp_path / "y", values))
    assert len(made) == 1 and dict(report.skipped) == {"unsafe name": 1}


def test_every_bad_entry_is_named(tmp_path):
    annotations = [
        box(1, [2, 3, 4, 5], id=1),  # good
        box(1, [2, 3, 0, 5]),
        box(1, [2, 3, 4, -5]),
        box(1, [20, 3, 4, 5]),  # begins where the picture ends
        box(1, [-9, -9, 5, 5]),
        box(1, [float("nan"), 3, 4, 5]),
        box(1, [2, 3, float("inf"), 5]),
        box(1, [2, 3, 10**400, 5]),
        box(1, [2, 3, 4]),
        box(1, "2 3 4 5"),
        box(1, [2, 3, 4, True]),
        box(1, [2, 3, 4, 5], 99),
        box(9, [2, 3, 4, 5]),
        box(1, [2, 3, 4, 5], id=1),
        box(1, [2, 3, 4, 5], iscrowd=1),
        box(5, [2, 3, 4, 5]),  # its picture is damaged
        box(1, [-2, -3, 100, 100]),  # good: cut at the edge
        {"bbox": [2, 3, 4, 5]},
    ]
    images = [(1, "a.png"), (1, "b.png"), (3, "../a.png"), (4, "none.png"), (5, "bad.png"), (6, 7)]
    path = write(tmp_path, coco(images, annotations))
    (tmp_path / "images" / "bad.png").write_bytes(b"x")
    names, made, report = read(path)
    assert len(made) == 1
    assert made[0].corners.tolist() == [[2, 3, 6, 8], [0, 0, 20, 10]]
    wanted = {
        "same id again": {("images", 2), ("annotations", 14)},
        "unsafe name": {("images", 3)},
        "no such picture": {("none.png", 4)},
        "not a picture": {("bad.png", 5)},
        "picture skipped": {("annotations", 16)},
        "malformed entry": {("images", 6), ("annotations", 18)},
        "box without area": {("annotations", 2), ("annotations", 3)},
        "box outside the picture": {("annotations", 4), ("annotations", 5)},
        "box not finite": {("annotations", 6), ("annotations", 7), ("annotations", 8)},
        "box is no box": {("annotations", 9), ("annotations", 10), ("annotations", 11)},
        "unknown category": {("annotations", 12)},
        "unknown picture": {("annotations", 13)},
        "crowd": {("annotations", 15)},
    }
    found: dict = {}
    for file, number, reason in report.places():
        found.setdefault(reason, set()).add((file.rpartition("/")[2], number))
    assert found == wanted


def test_the_classes_of_a_model_decide_which_boxes_count(tmp_path):
    annotations = [box(1, [2, 3, 4, 5]), box(1, [2, 3, 4, 5], 2)]
    path = write(tmp_path, coco([(1, "a.png")], annotations))
    names, (a,), report = read(path, classes=("other", "cell"))
    assert names == ("other", "cell") and a.classes.tolist() == [1]
    assert report.skipped == {"unknown category": 1}


def test_categories_of_one_name_are_one_class(tmp_path):
    values = coco([(1, "a.png")], [box(1, [2, 3, 4, 5], n) for n in (1, 2, 3)])
    values["categories"] = [{"id": n, "name": name} for n, name in enumerate("aba", 1)]
    names, (a,), _ = read(write(tmp_path, values))
    assert names == ("a", "b") and a.classes.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"images": [], "annotations": []}',
        '{"images": 3, "annotations": [], "categories": []}',
        '{"images": [], "annotations": [], "categories": []}',
        '{"images": [], "annotations": [], "categories": [{"id": 1}]}',
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_not_coco(text, tmp_path):
    with pytest.raises(DataError) as e:
        read(write(tmp_path, text))
    assert e.value.code == "QKV-033" and str(tmp_path) in e.value.place


def test_no_picture_of_the_list_is_there(tmp_path):
    with pytest.raises(DataError) as e:
        read(write(tmp_path, coco([(1, "c.png")], [])))
    assert e.value.code == "QKV-032" and "no such picture" in e.value.seen
    with pytest.raises(DataError) as e:
        read(archive(tmp_path / "x.tar", {"a.png": b"x"}))
    assert "annotations.json" in e.value.seen
    with pytest.raises(ConfigError):
        list(read_pictures(ImageSource(path="a.json"), SkipReport()))
