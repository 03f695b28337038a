"""DETR learns: synthetic shapes from nothing, then real blood cells from nothing and with the backbone that shapes taught.

    python bench/detr.py [--stages shapes,cells,cells-from-shapes] [--out detr.json] [--threads 2] [key=value …]

shapes              recipes/shapes-detr.toml: average precision on the test split, 500 pictures (to reach: mAP 0.80)
cells               the same net on detection-bccd (205 pictures, 640 × 480 made 120 × 160), 60 queries
cells-from-shapes   the same, its backbone, encoder and decoder from the best of `shapes`

A table, curves of mAP@0.5 over steps (.png), every number (.json), the runs in the folder of that name.  Settings go to all stages; those of one stage as
stage:key=value (cells:train.steps=2000).  The 36 test pictures of cells leave ± 5 points to chance (their data's own note)."""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

import qkv
from qkv.config import read_toml
from qkv.data.images.sources import ImageSource
from qkv.jobs.detect import measure_file
from qkv.learn.loop import Evaluated, Step
from qkv.look.plots import curve_png
from qkv.weights import store

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("QKV_SHARED", ROOT.parent / "shared")) / "data" / "detection-bccd"
STAGES = ("shapes", "cells", "cells-from-shapes")
TINY = ["model.size=tiny", "train.steps=2", "train.eval_every=1", "train.log_every=1"]


def shapes(tiny: bool) -> tuple[dict[str, Any], str]:
    """The recipe, and where it is tested."""
    made = read_toml(ROOT / "recipes" / "shapes-detr.toml")
    if tiny:
        made["data"] = {s: {"path": f"builtin:shapes/{s}?n=8&size=32"} for s in ("train", "dev")}
    return made, f"builtin:shapes/test?n={8 if tiny else 500}&size={32 if tiny else 64}"


def cells(tiny: bool, start: str = "") -> tuple[dict[str, Any], str]:
    made: dict[str, Any] = {
        "name": "cells",
        "data": {
            "train": {"path": str(SHARED / "train.tar"), "format": "tar"},
            "dev": {"path": str(SHARED / "val.tar"), "format": "tar"},
        },
        "objective": {
            "kind": "detect",
            "shortest": 32 if tiny else 120,
            "flip": True,
            "crop": 0.7,
            "scale": 0.8,
        },
        "model": {"queries": 60, "dropout": 0.1},
        "optim": {
            "lr": 5e-4,
            "schedule": "wsd",
            "warmup": 300,
            "decay": 0.4,
            "final": 0.02,
            "clip": 0.1,
            "betas": [0.9, 0.999],
            "weight_decay": 1e-4,
        },
        "train": {
            "steps": 8000,
            "batch_rows": 8,
            "eval_every": 500,
            "save_every": 1000,
            "log_every": 100,
            "precision": "fp32",
            "metric": "dev/map50",
        },
    }
    if start:
        # what was loaded keeps its norms' statistics unless it is told to learn
        made |= {"name": "cells-from-shapes", "from": start}
        made["model"] |= {"frozen": False, "trained": "all", "auxiliary": True}
    else:
        made["model"] |= {"family": "detr", "size": "shapes"}
    return made, str(SHARED / "test.tar")


def heard(event: Any) -> None:
    if isinstance(event, Evaluated):
        shown = {k.removeprefix("dev/"): round(v, 4) for k, v in event.metrics.items()}
        print(f"{event.step:>7}", json.dumps(shown), flush=True)
    elif isinstance(event, Step):
        print(
            f"{event.step:>7} loss {event.loss:.3f}, {event.tokens_per_second:.0f} pictures/s",
            flush=True,
        )


def stage(name: str, args: argparse.Namespace, start: str) -> dict[str, Any]:
    """Train, test: the scores, the curve, the minutes."""
    recipe, test = shapes(args.tiny) if name == "shapes" else cells(args.tiny, start)
    own = [s.partition(":")[2] for s in args.settings if s.startswith(f"{name}:")]
    common = [s for s in args.settings if ":" not in s.partition("=")[0]]
    tiny = [s for s in TINY if not (start and s.startswith("model."))] if args.tiny else []
    began = time.perf_counter()
    run = qkv.train(
        recipe, [*tiny, *common, *own], listen=heard, root=Path(args.out).with_suffix("") / "runs"
    )
    minutes = (time.perf_counter() - began) / 60
    kind = "auto" if test.startswith("builtin:") else "tar"
    model = run.best()
    found = measure_file(model, ImageSource(path=test, format=kind))
    curve = [(r["step"], r["dev/map50"]) for r in run.metrics if "dev/map50" in r]
    return {
        "run": str(run.folder),
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "minutes": minutes,
        "scores": found["scores"],
        "curve": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument(
        "--start", default="", help="a run of shapes, where that stage is not made anew"
    )
    parser.add_argument("--out", default="detr.json", help="every number; curves beside it as .png")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out, found = Path(args.out), {}
    for name in args.stages.split(","):
        if name != "shapes" and not SHARED.is_dir():
            print(f"{name}: {SHARED} is not here", flush=True)
            continue
        start = args.start or found.get("shapes", {}).get("run", "")
        found[name] = stage(name, args, start if name == "cells-from-shapes" else "")
        store.write_file(out, json.dumps(found, indent=1).encode())
    print(
        "\n| | parameters | minutes | mAP | mAP@0.5 | mAP@0.75 |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, f in found.items():
        s = f["scores"]
        print(
            f"| {name} | {f['parameters'] / 1e6:.2f} M | {f['minutes']:.1f} | {s['map']:.3f} | {s['map50']:.3f} | {s['map75']:.3f} |"
        )
    print(f"load average {os.getloadavg()[0]:.1f}")
    curves = {name: f["curve"] for name, f in found.items()}
    store.write_file(out.with_suffix(".png"), curve_png(curves, title="DETR", y="mAP@0.5 on dev"))


if __name__ == "__main__":
    main()
