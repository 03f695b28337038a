"""Real Korean and English: nothing is lost.  Needs the shared data, which is never committed."""

import gzip
import os
from pathlib import Path

import pytest

from qkv.text import TextConfig, train

SHARED = Path(os.environ.get("QKV_SHARED", Path(__file__).parents[3] / "shared"))
DEV = SHARED / "data" / "ko-en" / "dev.tsv.gz"


@pytest.mark.skipif(not DEV.is_file(), reason=f"no {DEV}; set QKV_SHARED")
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("jamo", [False, True])
def test_real_lines_come_back_and_are_covered(kind: str, jamo: bool) -> None:
    rows = gzip.decompress(DEV.read_bytes()).decode().split("\n")[1:]
    lines = [cell for row in rows for cell in row.split("\t")[1:3]]
    tk = train(lines[::4], TextConfig(kind=kind, vocab_size=3000, jamo=jamo))
    made = tk.encode_batch(lines)
    for x, e in zip(lines, made, strict=True):
        assert tk.decode(e.ids) == tk.normal(x)
    ids = [i for e in made for i in e.ids]
    assert sum(4 <= i < 260 for i in ids) < 0.02 * len(ids)  # few bytes: the pieces do the work
    for x, e in zip(lines[:200], made, strict=False):
        assert e.offsets[0][0] == 0 and e.offsets[-1][1] == len(x)
