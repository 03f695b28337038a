"""Plots: PNG bytes, the same every time, with Hangul, without a warning (pytest makes warnings errors)."""

import math
import struct

import numpy as np
import pytest

from qkv.errors import UsageError
from qkv.look import fonts
from qkv.look.plots import alignment_png, curve_png, grid_png, length_png
from qkv.look.views import Alignment, Grid

SOURCE = ["▁커피", "▁한", "잔", "<eos>"]
TARGET = ["▁coffee", "?", "<eos>"]
ALIGNMENT = Alignment(SOURCE, TARGET, np.full((3, 4), 0.25))
GRID = Grid(
    {f"decoder.blocks.{k}.cross": np.full((2, 3, 4), 0.25) for k in range(2)}, SOURCE, TARGET
)
CURVES = {"학습": [(0, 3.0), (10, 2.0), (20, 1.5)], "dev": [(0, 3.1), (20, 1.9)]}
LENGTHS = {"GRU + attention": [(5, 30.0, 28.0, 31.0), (20, 27.0, 25.0, 28.5)]}
PICTURES = {
    "alignment": lambda: alignment_png(ALIGNMENT, "커피 한 잔"),
    "grid": lambda: grid_png(GRID, title="교차 주의"),
    "curve": lambda: curve_png(CURVES, title="손실", y="nats"),
    "length": lambda: length_png(LENGTHS, title="BLEU by length"),
}


def chunks(png):
    at, found = 8, []
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        found.append(png[at + 4 : at + 8].decode())
        at += 12 + size
    return found


@pytest.fixture
def no_korean_font(monkeypatch):
    caches = (fonts.korean_font, fonts.families, fonts._glyphs)
    monkeypatch.setattr(fonts, "FONTS", ())
    monkeypatch.setattr(fonts, "FONT_FILES", ())
    for c in caches:
        c.cache_clear()
    yield
    for c in caches:
        c.cache_clear()


@pytest.mark.parametrize("name", PICTURES)
def test_same_values_make_the_same_bytes_and_no_date_is_in_them(name):
    one, two = PICTURES[name](), PICTURES[name]()
    assert one == two and one.startswith(b"\x89PNG")
    assert set(chunks(one)) == {"IHDR", "pHYs", "IDAT", "IEND"}


def test_plots_change_no_setting_of_matplotlib():
    import matplotlib

    before = dict(matplotlib.rcParams)
    curve_png(CURVES)
    assert dict(matplotlib.rcParams) == before


def test_hangul_is_drawn_as_hangul():
    if fonts.korean_font() is None:
        pytest.skip("no font with Hangul on this machine")
    assert fonts.drawable("커피 한 잔") == "커피 한 잔"
    assert len({curve_png(CURVES, title=c) for c in "가나다"}) == 3


def test_without_a_korean_font_hangul_is_romanised_and_the_picture_says_so(no_korean_font):
    assert fonts.korean_font() is None
    assert fonts.drawable("커피 한 잔") == "keopi han jan"
    assert alignment_png(ALIGNMENT, "커피") == alignment_png(ALIGNMENT, "커피")
    noted, plain = curve_png({"손": [(0, 1), (1, 2)]}), curve_png({"son": [(0, 1), (1, 2)]})
    assert noted != plain  # the same letters; the note is the difference


HOSTILE = [
    "$\\frac{1}{0}$",
    "\0\x07",
    "\u202eabc",
    "_hidden",
    "",
    "x" * 5000,
    "漢字かな",
    "🙂",
    "\U0001e900",
    "\ud800",
    "{}%s\n",
    "&<svg>",
]


def test_hostile_text_is_drawn_without_a_warning():
    n = len(HOSTILE)
    view = Alignment(HOSTILE, HOSTILE, np.eye(n), label=HOSTILE[0])
    assert alignment_png(view, "".join(HOSTILE)).startswith(b"\x89PNG")
    lines = {name: [(0, 1.0), (1, 2.0)] for name in HOSTILE}
    assert curve_png(lines, title=HOSTILE[1], x=HOSTILE[6], y=HOSTILE[0]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0, math.nan)],
        [(0, math.inf), (1, 2.0), (2, -math.inf)],
        [(0, 0.0), (1, -1.0)],
        [(5, 1.0)],
        [(k, k % 7) for k in range(5000)],
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_any_series_can_be_drawn(points, log):
    assert curve_png({"loss": points}, log=log).startswith(b"\x89PNG")


def test_empty_and_large_pictures():
    assert curve_png({}).startswith(b"\x89PNG") and length_png({}).startswith(b"\x89PNG")
    assert length_png({"a": [(5, 30.0, 30.1, 31.0), (9, math.nan, 0.0, 1.0)]}).startswith(
        b"\x89PNG"
    )
    assert alignment_png(Alignment([], [], np.zeros((0, 0)))).startswith(b"\x89PNG")
    n = 700
    big = alignment_png(
        Alignment([f"▁a{k}" for k in range(n)], [f"▁b{k}" for k in range(n)], np.eye(n))
    )
    assert max(struct.unpack(">II", big[16:24])) <= 14 * 144 + 1


def test_a_group_that_was_not_recorded_is_a_usage_error():
    with pytest.raises(UsageError, match="no encoder maps; there are: cross"):
        grid_png(GRID, "encoder")


def test_an_alignment_shows_itself_in_a_notebook():
    assert ALIGNMENT._repr_png_() == alignment_png(ALIGNMENT)
