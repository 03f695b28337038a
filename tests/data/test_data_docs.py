"""The examples of docs/data.md run as they stand."""

import re
from pathlib import Path

import pytest


def test_the_examples_run(capsys):
    page = Path(__file__).parents[2] / "docs" / "data.md"
    if not page.is_file():
        pytest.skip(f"no {page}")
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert "padding" in capsys.readouterr().out
