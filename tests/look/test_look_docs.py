"""docs/look.md runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "look.md"


def test_examples_run(tmp_path):
    pytest.importorskip(
        "qkv.weights.store", reason="the store is not built yet", exc_type=ImportError
    )
    code = "\n".join(
        re.findall(
            r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} >= {
        "attention.html",
        "alignment.png",
        "heads.png",
        "loss.png",
        "length.png",
    }
