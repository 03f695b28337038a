"""The README and the documentation do what they say: examples run, commands parse, links and paths exist.

A ```python block below a line `<!-- skip: reason -->` is not run, and the reason is printed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cli_tiny
from qkv.cli.parse import parse, split
from qkv.cli.table import COMMON, VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TESTS = [p for p in Path(__file__).parent.rglob("test_*.py") if p != Path(__file__)]
BLOCK = re.compile(
    r"(?:^<!-- skip: (?P<reason>.+) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```", re.M | re.S
)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_elsewhere(page: Path) -> bool:
    """Some pages have a test of their own, with what they need around them."""
    return any(re.search(rf'["/]{re.escape(page.name)}"', t.read_text("utf-8")) for t in TESTS)


def blocks(page: Path, kind: str) -> list[re.Match[str]]:
    return [m for m in BLOCK.finditer(page.read_text("utf-8")) if m["kind"] == kind]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python") and not run_elsewhere(p)], ids=named
)
def test_the_examples_of_a_page_run_in_order(page, tmp_path):
    code = []
    for block in blocks(page, "python"):
        if block["reason"]:
            print(f"{named(page)}: not run: {block['reason']}")
        else:
            code.append(block["code"])
    if not code:
        pytest.skip(f"every example of {named(page)} says why it is not run")
    shutil.copytree(cli_tiny.home(), tmp_path, dirs_exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(code)],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def commands(page: Path) -> list[str]:
    lines = [line for m in blocks(page, "console") for line in m["code"].split("\n")]
    return [
        line.removeprefix("$ ").split(" #")[0].strip() for line in lines if line.startswith("$ ")
    ]


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=named)
def test_every_command_of_a_page_exists(page):
    makes = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for command in commands(page):
        words = shlex.split(re.split(r" [<>][ &]", command.split(" | ")[-1])[0])
        if words[0] == "qkv":
            verb, rest = split(words[1:])
            assert verb is None or parse(verb, rest)
        elif words[0] == "make":
            assert words[1] in makes, command


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        there = page.parent / target
        if there.suffix == ".png" and not there.exists():
            print(f"{named(page)}: {target} is made by `make demo` and not there yet")
            continue
        assert there.exists(), target


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "README.ko.md"], ids=named)
def test_the_tree_in_the_readme_is_the_tree(page):
    [tree] = [m["code"] for m in blocks(page, "") if m["code"].startswith("src/qkv/")]
    for line in tree.split("\n"):
        base = ROOT / "src" / "qkv" if line.startswith("  ") else ROOT
        for name in re.findall(r"(?:^|\s\s)([\w/]+/|\w+\.py)(?=\s|$)", line):
            assert (base / name).exists(), name
    packages = {p.parent.name for p in (ROOT / "src" / "qkv").glob("*/__init__.py")}
    assert all(f"  {p}/" in tree for p in packages)


@pytest.mark.parametrize(
    "page", [ROOT / "docs" / "cli.md", ROOT / "docs" / "ko" / "cli.md"], ids=named
)
def test_the_page_of_the_command_line_names_every_option(page):
    text = page.read_text("utf-8")
    for verb in VERBS:
        assert f"qkv {verb.name}" in text
        for option in verb.opts:
            assert option.positional or option.name in text, f"{verb.name} {option.name}"
    assert all(option.name in text for option in COMMON)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_korean_and_english_pages_stand_beside_each_other(page):
    korean = page.parent.name == "ko" or page.name.endswith(".ko.md")
    assert bool(re.search("[가-힣]{2} [가-힣]{2}", page.read_text("utf-8"))) or not korean
    if korean:
        twin = page.with_name(page.name.replace(".ko.md", ".md"))
        twin = twin if page.parent.name != "ko" else page.parents[1] / page.name
        ours, theirs = (len(BLOCK.findall(p.read_text("utf-8"))) for p in (page, twin))
        assert twin.exists() and abs(ours - theirs) <= 1
