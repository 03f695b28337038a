"""Small tasks, Korean and English, by an encoder from nothing or from one that was pre-trained here.

    python bench/tasks.py [--data ../shared/data] [--out tasks] [--only klue-ner,…] [--start ko=RUN,en=RUN] [--seeds 3] [key=value …]

Without --start each task learns its own tokenizer and starts from random weights.  With it, a task of that language starts
from the run (bench/pretrain.py makes them, and for every seed a folder with the same network before any training).  A
part of train, kept apart by a hash, chooses the best step; the test file is measured once, at the end."""

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qkv
from qkv.weights import store


@dataclass(frozen=True)
class Task:
    language: str
    kind: str
    train: str
    test: str
    fields: dict[str, Any]
    measure: str
    steps: int
    max_tokens: int = 128
    text: dict[str, Any] = field(default_factory=dict)  # {}: the language's
    model: dict[str, Any] = field(default_factory=dict)  # beside NET, where nothing was pre-trained


NEAR = {"pattern": "window(4) | global(1)"}  # names are told by their neighbours: characters, …
PIECES = {"pattern": "window(3) | global(1)"}  # … and small pieces of words
TASKS = {
    "klue-ner": Task("ko", "tag", "klue-ner/train.jsonl.gz", "klue-ner/test.jsonl.gz",
                     {"text": "text", "tags": "tags"}, "f1", 1000, 160, model=NEAR),
    "3i4k": Task("ko", "classify", "intent-3i4k/train.tsv.gz", "intent-3i4k/test.tsv.gz",
                 {"text": "text", "label": "label"}, "accuracy", 700, 96),
    "korsts": Task("ko", "regress", "korsts/train.jsonl.gz", "korsts/test.jsonl.gz",
                   {"text": "sentence1", "pair": "sentence2", "label": "score"}, "pearson", 500, 160),
    "sentineg": Task("ko", "classify", "kobest/SentiNeg.train.jsonl.gz", "kobest/SentiNeg.test.jsonl.gz",
                     {"text": "Text", "label": "Label"}, "accuracy", 300, 96),
    "banking77": Task("en", "classify", "intent-banking77/train.tsv.gz", "intent-banking77/test.tsv.gz",
                      {"text": "text", "label": "category"}, "accuracy", 700, 128),
    "restaurant8k": Task("en", "tag", "span-restaurant8k/train.jsonl.gz", "span-restaurant8k/test.jsonl.gz",
                         {"text": "text", "spans": "spans"}, "f1", 800,
                         text={"kind": "unigram", "vocab_size": 1000}, model=PIECES),
    "parakqc": Task("ko", "contrast", "parakqc/train.tsv.gz", "parakqc/dev.tsv.gz",
                    {"text": "text", "group": "group"}, "recall@1", 500, 64),
}  # fmt: skip

NET = {
    "family": "bert",
    "d_model": 128,
    "n_layers": 2,
    "n_heads": 4,
    "d_ff": 512,
    "max_positions": 256,
}
TEXT = {"ko": {"kind": "chars"}, "en": {"kind": "unigram", "vocab_size": 8000}}


def recipe(name: str, data: str, seed: int, start: str) -> dict[str, Any]:
    task = TASKS[name]
    made: dict[str, Any] = {
        "name": f"{name}-{'pre' if start else 'own'}-{seed}",
        "seed": seed,
        "objective": {"kind": task.kind, "max_tokens": task.max_tokens},
        "data": {"train": {"path": f"{data}/{task.train}", "fields": task.fields}, "holdout": 0.08},
        "optim": {"lr": 1e-3, "schedule": "linear", "warmup": 60, "weight_decay": 0.01},
        "train": {
            "steps": task.steps,
            "batch_tokens": 4096,
            "eval_every": task.steps // 10,
            "save_every": task.steps,
            "metric": f"dev/{task.measure}",
        },
    }
    if start:
        return made | {"from": start, "model": {"dropout": 0.2}}
    text = task.text or TEXT[task.language]
    return made | {"text": text, "model": NET | {"dropout": 0.2} | task.model}


def run(name: str, data: str, seed: int, start: str, settings: list[str]) -> dict[str, Any]:
    """Train, choose the step on the part kept apart, measure the test file once."""
    done = qkv.train(recipe(name, data, seed, start), settings)
    found = qkv.evaluate(done.best(), f"{data}/{TASKS[name].test}")
    chosen = done.to_dict()["best"]
    return {"task": name, "seed": seed, "from": start, "dev": chosen, **found}


def line(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over seeds, of everything measured."""
    made: dict[str, Any] = {"task": rows[0]["task"], "from": rows[0]["from"], "seeds": len(rows)}
    for key in rows[0]["scores"]:
        values = [float(r["scores"][key]) for r in rows]
        made[key] = round(statistics.mean(values), 4)
        made[f"{key} ±"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", default="tasks")
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--start", default="", help="ko=RUN,en=RUN; {seed} in RUN is replaced")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    starts = dict(pair.split("=", 1) for pair in args.start.split(",") if pair)
    for name in args.only.split(","):
        start, rows = starts.get(TASKS[name].language, ""), []
        for seed in range(1, args.seeds + 1):
            rows.append(run(name, args.data, seed, start.format(seed=seed), args.settings))
            text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
            label = Path(start).parent.name if start else "own"
            store.write_file(Path(args.out) / f"{name}-{label}.json", text.encode())
        print(json.dumps(line(rows)), flush=True)


if __name__ == "__main__":
    main()
