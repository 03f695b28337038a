"""The examples of docs/decoding.md run."""

import re
import runpy
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "decoding.md"


def test_the_examples_of_the_page_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert blocks
    for i, block in enumerate(blocks):
        file = tmp_path / f"example_{i}.py"
        file.write_text(block, encoding="utf-8")
        runpy.run_path(str(file))
