"""The page: one file, nothing leaves it, and no token of it runs."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from itertools import product

import numpy as np
import pytest

from qkv.errors import UsageError
from qkv.look.page import embed, page
from qkv.look.views import Alignment, Grid

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: the page is not run"
)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --virtual-time-budget=3000".split()

PWN = "document.documentElement.setAttribute('data-pwned',1)"
SHORT = "document.title=1"  # fits into a token as shown
ATTACKS = [
    "<script>{}</script>", "</script><script>{}</script>", "<!--<script>{}", "--><script>{}</script>",
    "<img src=x onerror={}>", "<svg onload={}>", "<svg/onload={}//", "<iframe srcdoc='<script>{}</script>'>",
    "<a href=javascript:{}>x</a>", "<body onload={}>", "<details open ontoggle={}>", "<style>@import '//x'</style>",
    "<base href=//x>", "<meta http-equiv=refresh content=0;url=//x>", "<form action=//x><input autofocus onfocus={}>",
    "javascript:{}", "\"><img src=x onerror={}>", "'><svg onload={}>", "`${{{}}}`", "{{{{{}}}}}", "&lt;script&gt;{}", "&#60;script>{}",
    "\\u003cscript>{}", "\\x3cscript>{}", "]]><script>{}", "<math><mtext><img src=x onerror={}>", "<template><script>{}", "<noscript><p title=\"</noscript><img src=x onerror={}>",
    "<textarea></textarea><script>{}", "<title></title><script>{}",
]  # fmt: skip
AROUND = [
    "{}",
    "\0{}",
    "\u202e{}\u202c",
    "\u2028{}",
    "\ufeff{}",
    "\ud800{}",
    "▁{}",
    "##{}",
    "a\r\n{}",
    "\x1b[31m{}",
]


def payloads(code):
    return [w.replace("{}", a.format(code)) for w, a in product(AROUND, ATTACKS)]


def some_views(source, target, H=4, L=2):
    T, S = len(target), len(source)
    rng = np.random.default_rng(0)

    def soft(*shape):
        e = np.exp(3 * rng.normal(size=shape))
        return e / e.sum(-1, keepdims=True)

    maps = {}
    for k in range(L):
        maps[f"encoder.blocks.{k}.self"] = soft(H, S, S)
        maps[f"decoder.blocks.{k}.self"] = soft(H, T, T)
        maps[f"decoder.blocks.{k}.cross"] = soft(H, T, S)
    return [
        Alignment(source, target, maps["decoder.blocks.0.cross"][0], label="layer 1"),
        Grid(maps, source, target),
    ]


SOURCE = ["▁커피", "▁한", "잔", "▁어때", "?", "<eos>"]
TARGET = ["▁How", "▁about", "▁coffee", "?", "<eos>"]


def block(text, kind):
    return re.search(rf"<{kind}>(.*?)</{kind.split()[0]}>", text, re.DOTALL)[1]


def data_of(text):
    return re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]


def chrome(tmp_path, text, *flags):
    """The document after its script has run, and what the browser logged."""
    file = tmp_path / "page.html"
    file.write_bytes(text.encode())
    done = subprocess.run(
        [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.decode(), done.stderr.decode()


class Names(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attributes}


def test_policy_allows_exactly_this_style_and_this_script():
    text = page("t", some_views(SOURCE, TARGET), "en")
    policy = html.unescape(re.search(r'Policy" content="([^"]*)"', text)[1])

    def hashed(source):
        return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()

    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'{hashed(block(text, 'script'))}'"
    assert rules["style-src"] == f"'{hashed(block(text, 'style'))}'"
    assert rules["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize("asset", ["base.js", "matrix.js", "views.js", "page.css"])
def test_sources_write_no_markup_and_fetch_nothing(asset):
    text = (files("qkv.look") / "assets" / asset).read_text(encoding="utf-8")
    banned = r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|createContextualFragment|setHTML|eval\(|new Function|Function\(|import\(|fetch\(|XMLHttp|WebSocket|sendBeacon|localStorage|cookie|javascript:|@import|url\(|\.src\b|\.href\b|\bon[a-z]+\s*=[^=>]"
    assert re.findall(banned, text) == []
    assert "</script" not in text.lower() and "<!--" not in text and "\r" not in text


def test_no_address_in_the_page():
    text = page("t", some_views(SOURCE, TARGET), "en")
    assert set(re.findall(r"\w+://[^\s\"']+", text)) == {
        "http://www.w3.org/2000/svg"
    }  # a name, not a request


def test_data_cannot_leave_its_block_and_come_back_unchanged():
    value = {"x": payloads(PWN) + ["".join(map(chr, range(0x2100)))]}
    text = embed(value)
    assert not re.search("[<>&\u2028\u2029\u202e\ud800]", text)
    assert json.loads(text) == value
    text.encode("utf-8")


def test_hostile_titles_stay_text():
    for title in payloads(PWN):
        text = page(title, [Alignment(["a"], ["b"], [[1]])], "en")
        assert (
            text.count("<script") == 2
            and text.count("</script") == 2
            and text.count("<title>") == 1
        )
        assert json.loads(data_of(text))["title"] == html.unescape(block(text, "title"))


def test_same_views_make_the_same_page():
    one, two = (page("t", some_views(SOURCE, TARGET), "ko") for _ in range(2))
    assert one == two


def test_page_refuses_what_it_cannot_show():
    with pytest.raises(UsageError, match="language"):
        page("t", some_views(SOURCE, TARGET), "de")
    with pytest.raises(UsageError, match="nothing to show"):
        page("t", [])


ELEMENTS = set("html head meta title style body noscript p main script header h1 h2 h3 button section div span canvas svg path details summary table thead tbody tr th td footer".split())  # fmt: skip


@needs_browser
@pytest.mark.parametrize(
    "codes",
    [
        (SHORT, "alert(1)"),
        pytest.param((PWN, "top.x=1"), marks=pytest.mark.slow),
        pytest.param(("{a:1}", "`${x}`"), marks=pytest.mark.slow),
    ],
)
def test_no_hostile_token_runs_in_a_browser(tmp_path, codes):
    source, target = payloads(codes[0]), payloads(codes[1])
    attacks = source + target
    view = Alignment(source, target, np.full((len(target), len(source)), 1 / 300), label=attacks[1])
    nothing = Alignment([], [], np.zeros((0, 0)))
    few = some_views(attacks[:6], attacks[30:37])
    dom, log = chrome(tmp_path, page("".join(payloads(PWN)[:3]), [view, *few, nothing], "en"))
    names = Names(dom)
    assert names.elements <= ELEMENTS, names.elements - ELEMENTS
    assert not [
        a
        for a in names.attributes
        if a.startswith("on") or a in ("src", "href", "srcdoc", "data-pwned")
    ]
    assert dom.count('class="chip') > 600  # the tokens were drawn at all
    assert "Content Security Policy" not in log and "Uncaught" not in log, log
    assert "<title>1</title>" not in dom


@needs_browser
def test_policy_stops_a_script_that_is_not_ours(tmp_path):
    text = page("t", some_views(SOURCE, TARGET), "en")
    dom, log = chrome(
        tmp_path, text.replace("</main>", f"</main><script>{PWN}</script><img src=x onerror={PWN}>")
    )
    assert "data-pwned" not in Names(dom).attributes and "Content Security Policy" in log


def driven(text, script):
    """The page without its policy, and a script that uses it and leaves what it saw in the title."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)
    return text.replace("</body>", f"<script>(()=>{{{script}}})();</script></body>")


USE = """
const $ = (s) => document.querySelector(s), all = (s) => [...document.querySelectorAll(s)];
const saw = {}, key = (node, k) => node.dispatchEvent(new KeyboardEvent("keydown", {key: k, bubbles: true}));
const line = () => $(".readout").textContent;
saw.first = line();
const cells = $(".cells");
cells.focus(); key(cells, "ArrowDown"); key(cells, "ArrowRight");
saw.moved = line();
saw.lit = all("section .tick.lit").map((n) => n.textContent);
all(".target .chip")[4].dispatchEvent(new PointerEvent("pointerenter"));
saw.eos = line();
saw.shaded = all(".pair .sentence:not(.target) .value").map((n) => n.textContent);
saw.heading = $("h2").textContent;
$("header button").click();
saw.korean = [$("h2").textContent, document.documentElement.lang, line()];
const tabs = all("[role=tab]");
saw.tabs = tabs.map((t) => t.getAttribute("aria-selected"));
key(tabs[2], "ArrowLeft");
saw.panels = all("[role=tabpanel]").map((p) => p.hidden);
$("[role=tabpanel]:not([hidden]) .thumb").click();
saw.dialog = $("dialog").open && $("dialog h2").textContent;
$("dialog .pill:last-child").click();
$("details").open = true;
setTimeout(() => {
  saw.closed = $("dialog") === null;
  saw.cells = all("td").slice(1).map((n) => n.textContent);
  document.title = JSON.stringify(saw);
}, 300);
"""


@needs_browser
def test_page_can_be_used_by_key_and_pointer_in_both_languages(tmp_path):
    views = some_views(SOURCE, TARGET)
    weights = views[0].weights
    dom, log = chrome(tmp_path, driven(page("t", views, "en"), USE))
    saw = json.loads(html.unescape(block(dom, "title")))

    def said(i, j, target, source):
        return f"{target}→{source}{round(weights[i, j], 3):.3f}"

    best = int(weights[0].argmax())
    x = min(best + 1, 5)
    shown = ["커피", "한", "잔", "어때", "?", "end of sentence"]
    assert saw["first"] == said(0, best, "How", shown[best])
    assert saw["moved"] == said(1, x, "about", shown[x])
    assert saw["lit"] == [["커피", "한", "잔", "어때", "?", "⏎"][x], "about"]
    last = int(weights[4].argmax())
    assert saw["eos"] == said(4, last, "end of sentence", shown[last])
    assert saw["shaded"] == [
        f"{int(w * 100 + 0.5) / 100:.2f}" if w >= 0.01 else "" for w in weights[4].round(3)
    ]
    assert (
        saw["heading"] != saw["korean"][0]
        and saw["korean"][1] == "ko"
        and "문장 끝" in saw["korean"][2]
    )
    assert saw["tabs"] == ["false", "false", "true"] and saw["panels"] == [True, False, True]
    assert "디코더 자기 주의 · 층 1 · 헤드 1" in saw["dialog"] and saw["closed"]
    assert saw["cells"] == [f"{w:.3f}" for w in weights.round(3).ravel()]
    assert "Uncaught" not in log


MEASURE = """
setTimeout(() => {
  const wide = [...document.querySelectorAll("body *")].filter((n) => !n.closest(".scroll, svg, .hidden") && n.getBoundingClientRect().right > innerWidth + 1);
  parent.document.title = JSON.stringify([innerWidth, document.documentElement.scrollWidth, wide.map((n) => n.className || n.tagName)]);
}, 300);
"""


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_overflows_with_60_tokens(tmp_path, width):
    source = [f"▁긴문장의낱말{k}" for k in range(59)] + ["<eos>"]
    target = [f"▁internationalisation{k}" * (1 + k % 3) for k in range(59)] + ["<eos>"]
    text = page("제목 " * 40, some_views(source, target, H=8), "ko")
    # in a frame, because a window of headless chromium is never narrower than 500 px
    frame = f'<title></title><iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(driven(text, MEASURE))}"></iframe>'
    dom, _ = chrome(tmp_path, frame, "--window-size=1300,1000")
    inner, scroll, wide = json.loads(html.unescape(block(dom, "title")))
    assert inner == width and scroll <= inner and wide == []
