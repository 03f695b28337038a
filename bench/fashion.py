"""ViT and a hybrid of convolutions and attention with the same number of parameters, on Fashion-MNIST: one table.

    python bench/fashion.py [--data ../shared/data/fashion-mnist] [--out fashion.json] [--only vit,hybrid] [--seeds 1,2,3] [key=value …]

60,000 grey pictures of 28 × 28 in 10 classes; 5 % of them, by a hash of their pixels, choose the best step.  The test file is
measured once, by the model chosen.  Same pictures, noise, batches, steps and optimiser for both; learning rate and the rest are
those of the recipe fashion-vit.  A ViT of about 200,000 parameters is published with 92.3 %."""

import argparse
import statistics
import tempfile
import time
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from side import machine, report, table

import qkv

MODELS: dict[str, dict[str, Any]] = {
    "vit": {"family": "vit", "size": "mini"},
    "hybrid": {"family": "hybrid", "size": "mini"},
}
TINY = {
    "vit": {"family": "vit", "size": "tiny"},
    "hybrid": {"family": "hybrid", "size": "tiny"},
}
FILE = "{}-images-idx3-ubyte"


def recipe(name: str, path: str, seed: int, tiny: bool) -> dict[str, Any]:
    text = (files("qkv") / "recipes" / "fashion-vit.toml").read_text("utf-8")
    values = tomllib.loads(text)
    values |= {"name": f"fashion-{name}-{seed}", "seed": seed}
    values["model"] = (TINY if tiny else MODELS)[name]
    values["data"]["train"]["path"] = path
    if tiny:
        values["data"]["holdout"] = 0.3
        values["train"] |= {"steps": 2, "batch_rows": 8, "eval_every": 2, "save_every": 2}
    return values


def there(data: Path, split: str) -> str:
    """The file of a split, packed or not."""
    path = data / FILE.format(split)
    return str(path if path.exists() else path.with_name(path.name + ".gz"))


def made_up(folder: Path) -> Path:
    """A few pictures of noise in the layout of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 48), ("test", 16)):
        head = bytes([0, 0, 8, 3]) + np.array([n, 28, 28], dtype=">u4").tobytes()
        pixels = rng.integers(0, 256, n * 784, dtype=np.uint8).tobytes()
        (folder / FILE.format(split)).write_bytes(head + pixels)
        labels = bytes([0, 0, 8, 1]) + np.array([n], dtype=">u4").tobytes()
        name = FILE.format(split).replace("images-idx3", "labels-idx1")
        (folder / name).write_bytes(labels + bytes(i % 10 for i in range(n)))
    return folder


def measured(
    name: str, seed: int, data: Path, settings: list[str], root: Path, tiny: bool
) -> dict[str, Any]:
    began = time.perf_counter()
    values = recipe(name, there(data, "train"), seed, tiny)
    run = qkv.train(values, settings, root=root, listen=lambda e: print(name, seed, e, flush=True))
    seconds = time.perf_counter() - began
    model = run.best()
    found = qkv.evaluate(model, there(data, "test"))["scores"]
    return {
        "model": name,
        "seed": seed,
        "run": str(run.folder),
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "dev": run.to_dict()["best"]["dev/accuracy"],
        "test": found["accuracy"],
        "test_f1": found["f1"],
        "minutes": seconds / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data/fashion-mnist")
    parser.add_argument("--root", default="runs", help="the folder that holds the runs")
    parser.add_argument("--out", help="a JSON file with every run")
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--seeds", default="1", help="which, with commas between")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("settings", nargs="*", help="key=value of the recipe")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = made_up(Path(folder)) if args.tiny else Path(args.data)
        root = Path(folder) / "runs" if args.tiny else Path(args.root)
        runs = [
            measured(name, seed, data, args.settings, root, args.tiny)
            for name in args.only.split(",")
            for seed in map(int, args.seeds.split(","))
        ]
    rows = []
    for name in args.only.split(","):
        own = [r for r in runs if r["model"] == name]
        shown = ", ".join(f"{r['test']:.2f}" for r in own)
        mean = {k: statistics.mean(r[k] for r in own) for k in ("dev", "test", "minutes")}
        rows.append(
            (name, f"{own[0]['parameters']:,}", f"{mean['dev']:.2f}", f"{mean['test']:.2f}", shown, f"{mean['minutes']:.0f}")
        )  # fmt: skip
    head = ("model", "parameters", "dev %", "test %", "each seed", "minutes")
    facts = {"machine": machine(args.threads), "runs": runs, "settings": args.settings}
    report("Fashion-MNIST", table(head, rows), facts, args.out)


if __name__ == "__main__":
    main()
