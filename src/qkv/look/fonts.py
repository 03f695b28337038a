"""Which installed font draws Hangul, and what text the chosen fonts can draw at all.

Nothing reaches matplotlib that no font has a glyph for: such a character would be a warning and an empty box."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from .tokens import romanise, visible

FONTS = (
    "Noto Sans KR", "Noto Sans CJK KR", "Noto Sans CJK JP", "Pretendard", "NanumGothic", "Malgun Gothic",
    "Apple SD Gothic Neo", "AppleGothic", "NanumBarunGothic", "UnDotum", "Baekmuk Gulim",
)  # fmt: skip
FONT_FILES = (
    "notosanskr",
    "notosanscjk-regular",
    "nanumgothic.",
    "malgun.",
    "applegothic",
    "undotum.",
)
LATIN = "DejaVu Sans"  # comes with matplotlib


@cache
def families() -> tuple[str, ...]:
    """Font names in the order of trial."""
    return tuple(n for n in (korean_font(), LATIN) if n)


def drawable(text: str, limit: int = 48) -> str:
    """Text that the chosen fonts can draw: Hangul romanised without a font for it, the rest escaped."""
    known = _glyphs()
    text = visible(text, limit)
    if korean_font() is None:
        text = romanise(text)
    return "".join(c if ord(c) in known or c == " " else f"\\u{ord(c):04x}" for c in text)


@cache
def korean_font() -> str | None:
    """The name of an installed font with Hangul, or None."""
    from matplotlib import font_manager

    found = {f.name: f.fname for f in font_manager.fontManager.ttflist}
    for name in FONTS:
        if name in found and Path(found[name]).exists() and _has_hangul(found[name]):
            return name
    for path in sorted(
        font_manager.findSystemFonts()
    ):  # installed after matplotlib listed the fonts
        if any(Path(path).name.lower().startswith(f) for f in FONT_FILES) and _has_hangul(path):
            font_manager.fontManager.addfont(path)
            return font_manager.FontProperties(fname=path).get_name()
    return None


def _has_hangul(path: str) -> bool:
    return _charmap(path) >= {ord(c) for c in "가힣커피"}


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont

    find: Callable[[FontProperties], str] = findfont
    return frozenset().union(*(_charmap(str(find(FontProperties(family=[n])))) for n in families()))


@cache
def _charmap(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):  # a damaged font is no font
        return frozenset()
