"""The ladder on Multi30k De -> En: LSTM without attention, GRU with attention, Transformer.

    python bench/ladder.py [--data ../shared/data] [--out ladder] [--only rnn,attention,transformer] [key=value …]

Trains the three recipes below on the same data and tokenizer, scores test2016 with sacreBLEU and draws quality over the
length of the source: the bottleneck of one vector, and attention removing it.  Published tutorial figures: 13.8, 28.3, 36.5."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import qkv
from qkv.data.sources import PairSource
from qkv.look.plots import length_png
from qkv.weights import store

STEPS = {
    "rnn": {
        "model": {
            "family": "rnn",
            "cell": "lstm",
            "attention": False,
            "context": "every",
            "d_model": 512,
            "dropout": 0.4,
        },
        "optim": {"lr": 1e-3, "warmup": 300, "schedule": "cosine", "clip": 1.0},
        "train": {"steps": 1800},
    },
    "attention": {
        "model": {
            "family": "rnn",
            "cell": "gru",
            "attention": True,
            "score": "general",
            "d_model": 256,
            "dropout": 0.3,
        },
        "optim": {"lr": 2e-3, "warmup": 300, "schedule": "cosine", "clip": 1.0},
        "train": {"steps": 2500},
    },
    "transformer": {
        "model": {
            "family": "transformer",
            "d_model": 256,
            "n_heads": 4,
            "d_ff": 512,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "dropout": 0.2,
        },
        "optim": {"lr": 1e-3, "warmup": 300, "schedule": "cosine", "clip": 1.0},
        "train": {"steps": 2500},
    },
}


def pairs(data: str, split: str) -> dict[str, str]:
    base = f"{data}/multi30k/{split}"
    return {"source_path": f"{base}.de.gz", "target_path": f"{base}.en.gz"}


def recipe(name: str, data: str) -> dict:
    own = STEPS[name]
    common = {"batch_tokens": 2048, "smoothing": 0.1, "eval_every": 500, "save_every": 500}
    return {
        "name": f"ladder-{name}",
        "data": {"train": pairs(data, "train"), "dev": pairs(data, "val"), "max_tokens": 128},
        "text": {"kind": "bpe", "vocab_size": 8000, "lowercase": True},
        "model": own["model"],
        "optim": own["optim"],
        "train": {**common, **own["train"]},
        "eval": {"sentences": 200, "lowercase": True},
        "decode": {"beam": 5},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", default="ladder")
    parser.add_argument("--only", default=",".join(STEPS))
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    test, curves, table = PairSource(**pairs(args.data, "test_2016_flickr")), {}, []
    for name in args.only.split(","):
        run = qkv.train(
            recipe(name, args.data),
            args.settings,
            listen=lambda e, name=name: print(name, e, flush=True),
        )
        model = run.best()
        found = qkv.evaluate(model, replace(test), metrics=["bleu", "chrf"], lowercase=True)
        curves[name] = [
            ((b["low"] + b["high"]) / 2, b["value"], b["lower"], b["upper"])
            for b in found["by_length"]
        ]
        row = {
            "model": name,
            "run": str(run.folder),
            "perplexity": found["perplexity"],
            "by_length": found["by_length"],
        }
        row |= {k: v["value"] for k, v in found["scores"].items()}
        row["signature"] = found["scores"]["bleu"]["signature"]
        table.append(row)
        print(json.dumps({k: v for k, v in row.items() if k != "by_length"}), flush=True)
        store.write_file(Path(args.out) / f"{name}.json", json.dumps(row, indent=1).encode())
    store.write_file(
        Path(args.out) / "length.png", length_png(curves, title="Multi30k De → En, test2016")
    )


if __name__ == "__main__":
    main()
