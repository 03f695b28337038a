"""Pre-train a small BERT on masked words and next sentences, then fine-tune: does it beat the same network from nothing?

    python bench/pretrain.py [--data ../shared/data] [--out pretrain] [--languages ko,en] [--seeds 3] [--tasks …] [key=value …]

English on the books (lm-books-en), Korean on the short novels (lm-ko-novels), each with its own tokenizer.  The same
network before any training, one a seed, is saved beside the pre-trained one, so that both start a task with the same
tokenizer, sizes and recipe (bench/tasks.py), and differ in their weights alone."""

import argparse
import json
from pathlib import Path
from typing import Any

import tasks
import torch

import qkv
from qkv.model import Model
from qkv.models import build

CORPUS = {"ko": "lm-ko-novels", "en": "lm-books-en"}
ALL = ("klue-ner", "3i4k", "korsts", "sentineg", "banking77")


def recipe(language: str, data: str) -> dict[str, Any]:
    base = f"{data}/{CORPUS[language]}"
    fields = {"text": "text"}
    return {
        "name": f"bert-{language}",
        "objective": {"kind": "nsp", "max_tokens": 128},
        "data": {
            "train": {"path": f"{base}/train.jsonl.gz", "fields": fields},
            "dev": {"path": f"{base}/dev.jsonl.gz", "fields": fields},
        },
        "text": tasks.TEXT[language],
        "model": tasks.NET | {"dropout": 0.1},
        "optim": {"lr": 1e-3, "schedule": "linear", "warmup": 150, "weight_decay": 0.01},
        "train": {"steps": 2000, "batch_tokens": 8192, "eval_every": 500, "save_every": 500},
    }


def fresh(model: Model, seed: int, folder: Path) -> None:
    """The same network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(model.config)
    Model(net, model.tokenizer, model.config).save(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", default="pretrain")
    parser.add_argument("--languages", default="ko,en")
    parser.add_argument("--tasks", default=",".join(ALL))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("settings", nargs="*", help="of the pre-training")
    args = parser.parse_args()
    out = Path(args.out)
    for language in args.languages.split(","):
        done = qkv.train(
            recipe(language, args.data), args.settings, listen=lambda e: print(e, flush=True)
        )
        print(json.dumps(done.to_dict()), flush=True)
        for seed in range(1, args.seeds + 1):
            fresh(done.best(), seed, out / f"fresh-{language}" / str(seed))
        for name in (n for n in args.tasks.split(",") if tasks.TASKS[n].language == language):
            starts = (str(out / f"fresh-{language}" / "{seed}"), str(done.folder / "best"))
            for start in starts:
                seeds = range(1, args.seeds + 1)
                rows = [tasks.run(name, args.data, s, start.format(seed=s), []) for s in seeds]
                print(json.dumps(tasks.line(rows)), flush=True)


if __name__ == "__main__":
    main()
