"""One self-contained HTML file that shows views: no request leaves it, and no token of it can run.

Style and script are inline and allowed by their sha256 alone; the data lie in a JSON block in which every character
that could end the block or mislead a reader of the source is escaped; the script writes text by textContent only."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from ..errors import UsageError
from ..messages import Lang, language
from .colour import palette
from .pictures import Overlay
from .tokens import visible
from .views import Alignment, Grid

View = Alignment | Grid | Overlay
MAX_TITLE = 300
SCRIPTS = ("base.js", "matrix.js", "pictures.js", "views.js")
# < > & end or open markup; the rest are controls, invisible and bidirectional marks, and lone surrogates
RISKY = re.compile(
    "[<>&\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
SKELETON = """<!doctype html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript><p>This page draws attention maps and needs JavaScript. / 이 페이지는 자바스크립트가 있어야 보입니다.</p></noscript>
<main id="page"></main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def page(title: str, views: Sequence[View], lang: Lang | None = None) -> str:
    """The page as text, to be written as UTF-8.  `lang` is the language it opens in; a button changes it.

    Raises UsageError for an unknown language or an empty list of views."""
    lang = language() if lang is None else lang
    if lang not in ("en", "ko"):
        raise UsageError(f"unknown language {lang!r}", fix="use en or ko")
    if not views:
        raise UsageError("nothing to show", fix="give at least one Alignment or Grid")
    title = visible(title, MAX_TITLE)
    data = {
        "lang": lang,
        "title": title,
        "palettes": {"light": palette(), "dark": palette(dark=True)},
        "views": [v.to_dict() for v in views],
    }
    style, script = asset("page.css"), "".join(map(asset, SCRIPTS))
    return SKELETON.format(
        lang=lang,
        policy=html.escape(policy(style, script)),
        title=html.escape(title),
        style=style,
        data=embed(data),
        script=script,
    )


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: nothing but this one style and this one script, and no way to write markup."""
    return (
        f"default-src 'none'; script-src '{_sha256(script)}'; style-src '{_sha256(style)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def embed(data: object) -> str:
    """JSON for a <script> block: the same values for any JSON reader, and no way out of the block."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return RISKY.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


@cache
def asset(name: str) -> str:
    """A file of `assets`, with line ends as the browser will hash them."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
