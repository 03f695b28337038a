"""Does mending damaged texts help a translator?  T5's span corruption and BART's infilling, then Multi30k De -> En.

    python bench/denoise.py [--data ../shared/data] [--out denoise] [--families t5,bart] [--seeds 1] [--steps 500] [--before 600]

Pre-training reads the German and the English lines of train as single texts, never as pairs.  Fine-tuning takes the same
steps with the same recipe from the pre-trained weights and from random ones (of the same network, with the same
tokenizer); the plot shows the loss on dev of both."""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import torch

import qkv
from qkv.look.plots import curve_png
from qkv.model import Model
from qkv.models import build
from qkv.weights import store

# half of the tokens (Raffel et al. 2020, section 3.3.3): 15 % of a sentence of twelve words are two
DAMAGE = {"t5": {"kind": "spans", "rate": 0.5}, "bart": {"kind": "infill"}}
OPTIM = {"t5": {"lr": 5e-2, "relative": True}, "bart": {"lr": 2e-3}}


def lines(data: str, split: str, out: Path) -> str:
    """The sentences of both languages as one text file, one a line; written once."""
    path = out / f"{split}.txt"
    texts = [gzip.open(f"{data}/multi30k/{split}.{side}.gz").read() for side in ("de", "en")]
    store.write_file(path, b"".join(texts))
    return str(path)


def before(family: str, train: str, dev: str, steps: int) -> dict[str, Any]:
    source = {"format": "text", "unit": "line"}
    return {
        "name": f"{family}-before",
        "objective": DAMAGE[family] | {"max_tokens": 128},
        "data": {"train": {"path": train, **source}, "dev": {"path": dev, **source}},
        "text": {"kind": "bpe", "vocab_size": 8000, "lowercase": True},
        "model": {"family": family, "size": "tiny", "dropout": 0.1},
        "optim": OPTIM[family] | {"schedule": "inverse-sqrt", "warmup": 100},
        "train": {
            "steps": steps,
            "batch_tokens": 4096,
            "eval_every": steps // 2,
            "save_every": steps,
        },
    }


def after(family: str, name: str, start: str, data: str, seed: int, steps: int) -> dict[str, Any]:
    def pairs(split: str) -> dict[str, str]:
        base = f"{data}/multi30k/{split}"
        return {"source_path": f"{base}.de.gz", "target_path": f"{base}.en.gz"}

    return {
        "name": f"{family}-{name}-{seed}",
        "seed": seed,
        "from": start,
        "data": {"train": pairs("train"), "dev": pairs("val")},
        "optim": OPTIM[family] | {"schedule": "inverse-sqrt", "warmup": 100},
        "train": {
            "steps": steps,
            "batch_tokens": 4096,
            "smoothing": 0.1,
            "eval_every": steps // 10,
            "save_every": steps,
        },
        "eval": {"sentences": 0},
    }


def fresh(model: Model, seed: int, folder: Path) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(model.config)
    Model(net, model.tokenizer, model.config).save(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", default="denoise")
    parser.add_argument("--families", default="t5,bart")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--before", type=int, default=600)
    args = parser.parse_args()
    out, curves = Path(args.out), {}
    train, dev = (lines(args.data, split, out) for split in ("train", "val"))
    for family in args.families.split(","):
        first = qkv.train(before(family, train, dev, args.before))
        for seed in range(1, args.seeds + 1):
            nothing = fresh(first.best(), seed, out / f"{family}-fresh-{seed}")
            for name, start in (("pre-trained", str(first.folder / "last")), ("random", nothing)):
                run = qkv.train(
                    after(family, name, start, args.data, seed, args.steps),
                    listen=lambda e: print(e, flush=True),
                )
                series = [(m["step"], m["dev/loss"]) for m in run.metrics if "dev/loss" in m]
                curves[f"{family}, {name}" + (f", seed {seed}" if args.seeds > 1 else "")] = series
                row = {"family": family, "start": name, "seed": seed, "dev/loss": series}
                print(json.dumps(row), flush=True)
    store.write_file(out / "denoise.json", json.dumps(curves, indent=1).encode())
    picture = curve_png(curves, title="Multi30k De → En, loss on dev", y="loss")
    store.write_file(out / "denoise.png", picture)


if __name__ == "__main__":
    main()
