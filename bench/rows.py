"""What listops.py and longdoc.py share: encoders that differ in their attention alone, each trained by a recipe in a
process of its own, and one table of accuracy, time and memory."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from side import machine, report, table

Recipe = dict[str, Any]
# name -> (family, its own settings, the objective's)
ROWS: dict[str, tuple[str, Recipe, Recipe]] = {
    "full": ("performer", {"exact": True}, {}),
    "truncated": ("performer", {"exact": True}, {"cut": True}),
    "windows": ("performer", {"exact": True}, {"windows": True}),
    "performer": ("performer", {"features": 64}, {}),
    "longformer": ("longformer", {"window": 64, "attn_dropout": 0.0}, {}),
    "bigbird": ("bigbird", {"block": 16, "random": 3, "attn_dropout": 0.0}, {}),
}


def model(name: str, sizes: Recipe) -> Recipe:
    """The model of a row; `sizes` are shared by all."""
    family, own, _ = ROWS[name]
    return {"family": family, **sizes, **own}


def objective(name: str, longest: int, piece: int) -> Recipe:
    """Whole texts of at most `longest` tokens; their first `piece`; or windows of `piece`."""
    how = ROWS[name][2]
    most = piece if "cut" in how else longest
    made = {"kind": "classify", "max_tokens": most}
    return made | ({"window": piece} if "windows" in how else {})


def missing(name: str) -> str:
    """Why a row cannot be made here; empty where it can."""
    from qkv.errors import QkvError
    from qkv.models import FAMILIES, configure

    family, own, _ = ROWS[name]
    if family not in FAMILIES:
        return f"no family {family!r} in this version"
    try:
        configure({"family": family, "head": "classes", "labels": ["a", "b"], "vocab_size": 9, **own})  # fmt: skip
    except QkvError as e:
        return str(e)
    return ""


def memory() -> float:
    """The most this process has held so far, MB; of an accelerator where one is used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(recipe: Recipe, test: str, root: str) -> dict[str, Any]:
    """Train, then measure on `test`.  Seconds are of processor time, so that other work on the machine does not count."""
    import torch

    import qkv
    from qkv.learn.loop import Evaluated, Step

    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    took: list[float] = []
    last: tuple[int, float] | None = None
    base = memory()

    def listen(event: Any) -> None:
        nonlocal last
        if isinstance(event, Step):
            if last is not None:
                took.append((clock() - last[1]) / (event.step - last[0]))
            last = event.step, clock()
            print(f"{recipe['name']} {event.step}: {event.loss:.3f}", file=sys.stderr, flush=True)
        elif isinstance(event, Evaluated):
            last = None
            print(f"{recipe['name']} {event.metrics}", file=sys.stderr, flush=True)

    began = clock()
    run = qkv.train(recipe, listen=listen, root=root, new=True, device="auto")
    seconds, peak = clock() - began, memory() - base
    best = run.best()
    found = qkv.evaluate(best, test)
    return {
        "accuracy": found["scores"]["accuracy"],
        "f1": found["scores"]["f1"],
        "dev": run.to_dict()["best"].get("dev/accuracy"),
        "step_seconds": statistics.median(took) if took else None,
        "seconds": seconds,
        "peak_mb": peak,
        "parameters": sum(p.numel() for p in best.net.parameters()),
        "run": str(run.folder),
        "device": str(best.device),
    }


def parser(doc: str | None, rows: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--only", default=rows, help="rows, joined by commas")
    made.add_argument("--quick", action="store_true", help="minutes instead of half an hour")
    made.add_argument("--tiny", action="store_true", help="a smoke test")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--steps", type=int, default=0, help="0: those of the setting")
    made.add_argument("--root", default="runs", help="where the runs go")
    made.add_argument("--out", help="all figures as JSON")
    made.add_argument("--row", help=argparse.SUPPRESS)  # this process trains one row
    return made


def run(
    args: argparse.Namespace, script: str, title: str, job: Callable[[str], tuple[Recipe, str]]
) -> None:
    """`job(name)` gives a row's recipe and where it is tested."""
    if args.row:
        print(json.dumps(measured(*job(args.row), args.root)), flush=True)
        return
    found: dict[str, Any] = {}
    for name in args.only.split(","):
        if name not in ROWS:
            raise SystemExit(f"no row {name!r}; there are {', '.join(ROWS)}")
        if reason := missing(name):
            print(f"{name}: skipped, {reason}", flush=True)
            continue
        env = os.environ | {n: str(args.threads) for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        command = [sys.executable, script, *sys.argv[1:], "--row", name]
        done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE)
        if done.returncode:
            print(f"{name}: ended with exit code {done.returncode}", flush=True)
            continue
        found[name] = json.loads(done.stdout.strip().split("\n")[-1])
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    head = ["attention", "test accuracy", "macro-F1", "dev", "ms per step", "peak MB", "minutes"]
    lines = [
        [n, r["accuracy"], r["f1"], r["dev"], 1e3 * (r["step_seconds"] or 0.0), r["peak_mb"], r["seconds"] / 60]
        for n, r in found.items()
    ]  # fmt: skip
    facts = {"machine": machine(args.threads), "rows": found, "arguments": vars(args)}
    report(title, table(head, lines), facts, args.out)


def script(path: str) -> str:
    return str(Path(path).resolve())
