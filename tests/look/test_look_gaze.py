"""Where a net of pictures looks: its gaze laid over the picture."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from qkv.data.images.process import Processor
from qkv.errors import UsageError
from qkv.gaze import gaze, places
from qkv.look.page import page
from qkv.look.pictures import overlay_png
from qkv.look.record import record
from qkv.look.views import rollout
from qkv.model import Model
from qkv.models import build, configure
from qkv.pictures import of_pixels

HALF = Processor(size=None, mean=(0.5,), std=(0.5,))


def test_places_leave_the_first_tokens_out():
    assert np.array_equal(places(np.arange(8.0), 2, (2, 3)), [[2, 3, 4], [5, 6, 7]])


def model(**more: object) -> Model:
    torch.manual_seed(0)
    config = configure({"family": "vit", "size": "tiny", "labels": ["a", "b"], **more})
    return Model(build(config), None, config, processor=HALF)


def picture(h: int = 28, w: int = 28) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, 1), dtype=np.uint8)


KINDS = {
    "mean": {},
    "first": {"pool": "first"},
    "distilled": {"layout": "deit", "pool": "first", "head": "distilled"},
    "bare": {"pool": "first", "head": "none", "labels": []},
    "wide": {"pool": "first", "image_size": [28, 14]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gaze_is_what_was_recorded(kind):
    m, x = model(**KINDS[kind]), picture(28, 14 if kind == "wide" else 28)
    seen = gaze(m, x)
    pixels = torch.from_numpy(HALF.numbers(x))[None]
    with torch.inference_mode(), record(m) as found:
        m.net.encode(of_pixels(pixels))
    layers = [t[0].double().numpy() for t in found.values()]
    n = m.net.firsts
    assert seen.grid == (4, 2 if kind == "wide" else 4) and len(layers) == 2
    query = n + 1 * seen.grid[1] + 0
    np.testing.assert_array_equal(seen.map(1, 1, (1, 0)).ravel(), layers[1][1, query, n:])
    rows = {"mean": list(range(16)), "distilled": [0, 1]}.get(kind, [0])
    want = layers[0].mean(0)[rows].mean(0)[n:]
    np.testing.assert_allclose(seen.map(0).ravel(), want, atol=1e-12)
    want = rollout({f"encoder.blocks.{i}": m for i, m in enumerate(layers)})[rows].mean(0)[n:]
    np.testing.assert_allclose(seen.rollout().ravel(), want, atol=1e-12)
    assert (seen.answer is None) == (kind == "bare")


def test_a_page_and_a_png_of_it():
    seen = gaze(model(pool="first"), picture())
    view = seen.overlay()
    held = json.loads(re.search(r'id="data">(.*?)</script>', page("t", [view], "en"), re.S)[1])[
        "views"
    ][0]
    assert [t["name"] for t in held["things"]] == ["rollout", "layer 1", "layer 2"]
    assert [m["name"] for m in held["things"][1]["maps"]] == ["head 1", "head 2", "mean"]
    assert held["grid"] == [4, 4] and len(held["fields"]) == 1 + 2 * 3
    of_page = np.array(held["fields"][-1]["weights"])  # layer 2, head 2; each row up to its largest
    own = seen.maps[1][1][1:, 1:]
    low, top = own.min(1, keepdims=True), own.max(1, keepdims=True)
    assert np.abs(of_page / 1000 - (own - low) / (top - low)).max() <= 0.00051
    assert held["width"] == held["height"] == 224  # 28 pixels enlarged eightfold
    shown = np.frombuffer(base64.b64decode(held["rgb"]), np.uint8).reshape(224, 224, 3)
    assert (
        held["heat"] and np.abs(shown[::8, ::8, 0] - (64 + seen.picture[..., 0] / 2)).max() <= 0.5
    )
    assert overlay_png(view)[:4] == b"\x89PNG"
    other = seen.overlay((3, 3)).things[2].maps["head 1"]
    np.testing.assert_array_equal(other, seen.map(1, 0, (3, 3)))


def test_leftovers_are_cut_off_the_picture_shown():
    assert gaze(model(pool="first"), picture(30, 33)).picture.shape == (28, 28, 1)
    torch.manual_seed(0)
    config = configure({"family": "hybrid", "size": "tiny", "labels": ["a", "b"]})
    seen = gaze(Model(build(config), None, config, processor=HALF), picture(30, 33))
    assert seen.picture.shape == (30, 33, 1) and seen.grid == (8, 9)


def test_what_is_not_there_is_named():
    seen = gaze(model(), picture())
    for wrong in ({"layer": 2}, {"head": 2}, {"query": (4, 0)}, {"query": (0, -1)}):
        with pytest.raises(UsageError):
            seen.map(**wrong)


def test_the_command_line_draws_both(tmp_path, capsys):
    from qkv.cli import main

    model(pool="first").save(tmp_path / "m")
    file = tmp_path / "shoe.png"
    Image.fromarray(picture()[..., 0]).save(file)
    page_, png = tmp_path / "a.html", tmp_path / "a.png"
    code = main(
        [
            "look",
            "--model",
            str(tmp_path / "m"),
            str(file),
            "-o",
            str(page_),
            "-o",
            str(png),
            "--json",
        ]
    )
    assert code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["grid"] == [4, 4] and said["files"] == [str(page_), str(png)]
    assert "overlayView" in page_.read_text() and png.read_bytes()[:4] == b"\x89PNG"
