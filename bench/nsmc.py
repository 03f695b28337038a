"""Sentiment of Korean film reviews from nothing: RNN, LSTM and GRU without and with attention, and a Transformer encoder.

    python bench/nsmc.py [--data ../shared/data] [--out nsmc] [--only transformer,gru-attention,…] [--seeds 1] [key=value …]

150,000 reviews to learn from, 2 % of them kept apart by a hash to choose the best step, 25,000 to measure on; BPE, some of the merges
dropped while training.  Naive Bayes gets 85.0 here; published models without pre-training 85.99 - 86.37.

The Transformer reads 32,000 pieces, each with its two neighbours on both sides and the first: without `model.pattern` it is worse."""

import argparse
import json
from pathlib import Path
from typing import Any

import qkv
from qkv.weights import store

RNN = {"family": "rnn-encoder", "d_model": 128, "dropout": 0.4}
MODELS: dict[str, dict[str, Any]] = {
    "transformer": {
        "family": "bert",
        "d_model": 160,
        "n_layers": 2,
        "n_heads": 4,
        "d_ff": 320,
        "max_positions": 96,
        "pattern": "window(2) | global(1)",
        "dropout": 0.4,
        "attn_dropout": 0.0,
    },
    **{
        f"{cell}{'-attention' if attention else ''}": RNN | {"cell": cell, "attention": attention}
        for cell in ("rnn", "lstm", "gru")
        for attention in (False, True)
    },
}


def recipe(name: str, data: str, seed: int) -> dict[str, Any]:
    reads = name == "transformer"
    return {
        "name": f"nsmc-{name}-{seed}",
        "seed": seed,
        "objective": {"kind": "classify", "max_tokens": 96},
        "data": {
            "train": {
                "path": f"{data}/nsmc/train.tsv.gz",
                "fields": {"text": "document", "label": "label"},
            }
        },
        "text": {
            "kind": "bpe",
            "vocab_size": 32000 if reads else 16000,
            "sample_alpha": 0.2 if reads else 0.1,
        },
        "model": MODELS[name],
        "optim": {
            "lr": 1e-3 if reads else 2e-3,
            "schedule": "cosine",
            "warmup": 100,
            "weight_decay": 0.01,
        },
        "train": {
            "steps": 1200 if reads else 800,
            "batch_tokens": 8192,
            "ema": 0.998,
            "eval_every": 100,
            "save_every": 100,
            "metric": "dev/accuracy",
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", default="nsmc")
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    for name in args.only.split(","):
        for seed in range(1, args.seeds + 1):
            run = qkv.train(
                recipe(name, args.data, seed),
                args.settings,
                listen=lambda e, name=name: print(name, e, flush=True),
            )
            model = run.best()
            found = qkv.evaluate(model, f"{args.data}/nsmc/test.tsv.gz")
            n = sum(p.numel() for p in model.net.parameters())
            row = {"model": name, "seed": seed, "run": str(run.folder), "parameters": n, **found}
            print(json.dumps(row), flush=True)
            text = json.dumps(row, indent=1) + "\n"
            store.write_file(Path(args.out) / f"{name}-{seed}.json", text.encode())


if __name__ == "__main__":
    main()
