"""One tiny trained run, made once per session: 24 Korean-English pairs of our own, learned by heart."""

import os
import tempfile
from functools import cache
from pathlib import Path

SUBJECTS = {"저는": "I", "우리는": "We", "그들은": "They", "너는": "You"}
OBJECTS = {"커피를": "coffee", "책을": "books", "노래를": "songs"}
VERBS = {"좋아해요": "like", "원해요": "want"}
PAIRS = [
    (f"{s} {o} {v}", f"{SUBJECTS[s]} {VERBS[v]} {OBJECTS[o]}")
    for s in SUBJECTS
    for o in OBJECTS
    for v in VERBS
]
RECIPE = """
name = "demo"
[data.train]
path = "train.tsv"
[data.dev]
path = "train.tsv"
[text]
kind = "words"
[model]
d_model = 32
n_heads = 2
d_ff = 64
encoder_layers = 1
decoder_layers = 1
dropout = 0.0
norm_first = true
[optim]
lr = 0.01
warmup = 10
[train]
steps = 120
batch_tokens = 512
smoothing = 0.0
eval_every = 60
save_every = 60
log_every = 10
precision = "fp32"
[eval]
sentences = 4
"""


def write_corpus(folder: Path) -> None:
    lines = [f"{ko}\t{en}" for ko, en in PAIRS]
    for name in ("train.tsv", "test.tsv", "ko-en.tsv"):
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")


@cache
def home() -> Path:
    """A folder with train.tsv, tiny.toml and the finished run runs/demo-1.  Tests copy it before they change it."""
    import torch

    import qkv

    folder = Path(tempfile.mkdtemp(prefix="qkv-tests-"))
    write_corpus(folder)
    (folder / "tiny.toml").write_text(RECIPE, "utf-8")
    before, threads = os.getcwd(), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        qkv.train("tiny.toml", root="runs")
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    return folder
