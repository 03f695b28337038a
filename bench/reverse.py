"""Reverse a sequence of up to 25 symbols: what one vector can hold, and what attention gives back.

    python bench/reverse.py [--out reverse] [key=value …]

The same GRU with and without attention; exact match on held-out sequences by their length, as a plot and a table."""

import argparse
import json
from pathlib import Path

import qkv
from qkv.data.report import SkipReport
from qkv.data.sources import PairSource, read_pairs
from qkv.look.plots import curve_png
from qkv.weights import store

TASK = "builtin:reverse/{split}?n={n}&length=25"


def recipe(attention: bool) -> dict:
    return {
        "name": "reverse-" + ("attention" if attention else "plain"),
        "data": {
            "train": {"path": TASK.format(split="train", n=100_000)},
            "dev": {"path": TASK.format(split="dev", n=500)},
        },
        "text": {"kind": "words"},
        "model": {
            "family": "rnn",
            "cell": "gru",
            "attention": attention,
            "d_model": 128,
            "dropout": 0.0,
        },
        "optim": {"lr": 3e-3, "warmup": 100, "schedule": "cosine"},
        "train": {
            "steps": 1000,
            "batch_tokens": 4096,
            "smoothing": 0.0,
            "eval_every": 500,
            "save_every": 500,
        },
        "eval": {"metrics": ["exact"]},
    }


def by_length(model: qkv.Model, n: int = 2000) -> dict[int, float]:
    """Exact match in percent for each length of the test split."""
    test = list(read_pairs(PairSource(path=TASK.format(split="test", n=n)), SkipReport()))
    answers = model.translate([p.source for p in test], max_new_tokens=40)
    hits: dict[int, list[bool]] = {}
    for p, a in zip(test, answers, strict=True):
        hits.setdefault(len(p.source.split()), []).append(a.text == p.target)
    return {length: 100 * sum(h) / len(h) for length, h in sorted(hits.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="reverse")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    curves, rows = {}, {}
    for attention in (True, False):
        run = qkv.train(recipe(attention), args.settings, listen=lambda e: print(e, flush=True))
        found = by_length(run.best())
        name = "GRU with attention" if attention else "GRU, one vector"
        curves[name] = list(found.items())
        rows[name] = {"exact": sum(found.values()) / len(found), "by_length": found}
        print(name, json.dumps(rows[name]), flush=True)
    png = curve_png(curves, title="Reverse a sequence", x="length", y="exact match, %")
    store.write_file(Path(args.out) / "reverse.png", png)
    store.write_file(Path(args.out) / "reverse.json", json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
