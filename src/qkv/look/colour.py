"""Sequential colour maps, computed: a path through OKLCH along which lightness only ever goes one way.

Lightness alone carries the weight, so the maps read the same for every kind of colour vision and in grey print;
the hue (warm, green, blue) is an aid.  One map on paper (light to dark), one on a dark page (dark to light)."""

import math

Colour = tuple[float, float, float]


def palette(n: int = 33, *, dark: bool = False) -> list[str]:
    """n colours from weight 0 to the largest weight, as #rrggbb; the ends sit near the page's own background."""
    return ["#" + "".join(f"{round(255 * c):02x}" for c in rgb) for rgb in stops(n, dark=dark)]


def stops(n: int, *, dark: bool = False) -> list[Colour]:
    return [_path(k / (n - 1), dark) for k in range(n)]


def _path(t: float, dark: bool) -> Colour:
    """The colour at t in [0, 1]: lightness linear in t, hue linear, chroma a low arch."""
    if dark:
        lightness, hue = 0.235 + 0.685 * t, 278 - 178 * t
        chroma = 0.02 + 0.16 * t * (1.25 - 0.5 * t)
    else:
        lightness, hue = 0.972 - 0.672 * t, 108 + 166 * t
        chroma = 0.012 + 0.33 * t * (1 - 0.72 * t)
    return _in_gamut(lightness, chroma, math.radians(hue))


def _in_gamut(lightness: float, chroma: float, hue: float) -> Colour:
    """The most colourful sRGB colour of this lightness and hue, up to `chroma`."""
    while True:
        rgb = _srgb(lightness, chroma * math.cos(hue), chroma * math.sin(hue))
        if chroma <= 0 or all(-1e-4 <= c <= 1 + 1e-4 for c in rgb):
            r, g, b = (min(1.0, max(0.0, c)) for c in rgb)
            return r, g, b
        chroma -= 0.002


def _srgb(lightness: float, a: float, b: float) -> Colour:
    """OKLab -> sRGB (Ottosson 2020)."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _gamma(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _gamma(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _gamma(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


def _gamma(c: float) -> float:
    return 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055
