"""Korean -> English on the ko-en corpus: all domains, then tuned to everyday sentences; BLEU and chrF per domain of dev.

    python bench/ko_en.py [--data ../shared/data] [--out ko-en] [key=value … for the first stage]

An untuned first figure to beat later.  news, jhe and ntrex never occur in training."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import qkv
from qkv.data.sources import PairSource
from qkv.weights import store

DOMAINS = ("tatoeba", "jhe", "news", "ntrex", "pydocs", "bible")


def corpus(data: str, split: str, domain: str = "") -> PairSource:
    where = {"domain": domain} if domain else {}
    path = f"{data}/ko-en/{split}.tsv.gz"
    return PairSource(path=path, source="ko", target="en", where=where)


def recipe(data: str, steps: int, lr: float, domain: str = "") -> dict:
    train, dev = asdict(corpus(data, "train", domain)), asdict(corpus(data, "dev", "tatoeba"))
    return {
        "name": "ko-en-everyday" if domain else "ko-en-all",
        "data": {"train": train, "dev": dev, "max_tokens": 100},
        "text": {"kind": "bpe", "vocab_size": 12000, "sample_alpha": 0.0},
        "model": {
            "family": "transformer",
            "d_model": 192,
            "n_heads": 6,
            "d_ff": 768,
            "dropout": 0.1,
        },
        "optim": {"lr": lr, "warmup": min(300, steps // 4), "schedule": "cosine", "clip": 1.0},
        "train": {"steps": steps, "batch_tokens": 4096, "eval_every": 100, "save_every": 100},
        "decode": {"beam": 4},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", default="ko-en")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--tune", type=int, default=150)
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()

    def say(event: object) -> None:
        print(event, flush=True)

    first = qkv.train(recipe(args.data, args.steps, 1.5e-3), args.settings, listen=say)
    tuned = {**recipe(args.data, args.tune, 3e-4, "tatoeba"), "from": str(first.folder / "best")}
    second = qkv.train(tuned, listen=say)
    rows = {}
    for name, run in (("all domains", first), ("tuned to everyday", second)):
        model = run.best()
        for domain in DOMAINS:
            found = qkv.evaluate(model, corpus(args.data, "dev", domain), ["bleu", "chrf"], beam=4)
            rows[f"{name} / {domain}"] = {k: v["value"] for k, v in found["scores"].items()}
            print(name, domain, json.dumps(rows[f"{name} / {domain}"]), flush=True)
    store.write_file(Path(args.out) / "ko-en.json", json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
