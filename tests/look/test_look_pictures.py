"""Maps and boxes over a picture: what a page holds, and what a PNG shows where."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from qkv.errors import QkvError
from qkv.look.page import page
from qkv.look.pictures import MAX_SIDE, Overlay, Thing, boxes_png, overlay_png

DARK = np.full((48, 64, 3), 40, np.uint8)


def left(value=0.5):
    """A map of 3 × 4 cells that looks at the left column alone."""
    made = np.zeros((3, 4))
    made[:, 0] = value
    return made


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_page_holds_the_picture_and_each_map():
    things = [
        Thing("cat 0.9", {"layer 1": left(), "mean": left(0.2)}, (8, 6, 20, 30)),
        Thing("<b>", {}),
    ]
    text = page("t", [Overlay(DARK, things, "a picture")], "en")
    held = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["views"][0]
    rgb = np.frombuffer(base64.b64decode(held["rgb"]), np.uint8).reshape(48, 64, 3)
    assert np.array_equal(rgb, DARK)
    assert held["things"][0]["box"] == [8, 6, 20, 30]
    first, second = (m["weights"] for m in held["things"][0]["maps"])
    assert first == second == [[1000, 0, 0, 0]] * 3  # each up to its own largest
    assert "<b>" not in text.split('id="data">')[1].split("</script>")[0]
    assert "overlayView" in text and "img-src" not in text  # drawn, not fetched


def test_a_large_picture_is_made_smaller_with_its_boxes():
    wide = np.zeros((300, 4 * MAX_SIDE, 3), np.uint8)
    held = Overlay(wide, [Thing("x", {}, (400, 100, 800, 200))]).to_dict()
    assert (held["width"], held["height"]) == (MAX_SIDE, 75)
    assert held["things"][0]["box"] == [100, 25, 200, 50]


def test_the_veil_lies_where_nothing_is_looked_at():
    view = Overlay(DARK, [Thing("", {"mean": left()})])
    shown = pixels(overlay_png(view))
    light = shown.mean(2)
    H, W = light.shape
    row = light[H // 2]
    inside = np.flatnonzero(row < 250)
    assert row[inside[0] + 4] < 90  # the picture itself
    assert row[inside[0] : W][-20:].mean() > 180  # veiled
    assert overlay_png(view) == overlay_png(view)


def test_boxes_are_drawn_where_they_are_in_the_picture_s_own_size():
    png = boxes_png(
        np.full((240, 400, 3), 255, np.uint8), [Thing("dog 0.87", {}, (100, 60, 300, 200))]
    )
    shown = pixels(png)
    assert shown.shape[:2] == (240, 400)
    inked = np.abs(shown - 255).sum(2) > 60
    ys, xs = np.nonzero(inked[70:195, 105:295])
    assert not len(ys)  # nothing within
    assert inked[130, 98:103].any() and inked[130, 298:303].any()
    assert inked[58:63, 250].any() and inked[198:203, 250].any()


def test_grey_pictures_and_none_at_all():
    assert pixels(boxes_png(np.zeros((40, 40, 1), np.uint8), [])).shape == (320, 320, 3)
    assert overlay_png(Overlay(np.zeros((9, 9, 1), np.uint8), [])).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "picture, maps",
    [
        (np.zeros((4, 4), np.uint8), {}),
        (np.zeros((4, 4, 3)), {}),
        (DARK, {"m": np.zeros(3)}),
        (DARK, {"m": np.full((2, 2), np.nan)}),
    ],
)
def test_what_is_no_picture_or_no_map_is_told(picture, maps):
    with pytest.raises(QkvError):
        Overlay(picture, [Thing("x", maps)])
