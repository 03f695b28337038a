"""Crash-proof training, measured: SIGKILL at random moments, the same command again, the same bytes at the end.

    python bench/kill.py                 100 kills
    python bench/kill.py --kills 1000 --seed 7

One process imports torch and forks a child per attempt (0.1 s instead of 3).  Every case starts a run, kills it at a
moment drawn uniformly from the time an uninterrupted run takes, runs the same command again (a third of the resumed runs
are killed again), and compares what is left with the uninterrupted run: every file of best/, last/ and average/,
metrics.jsonl, samples.jsonl, best.json, and the names of all files.  Exit code 1 where a byte differs."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a pool of threads does not survive a fork
os.environ["TOKENIZERS_PARALLELISM"] = "false"

SAVE_EVERY = 3
RECIPE: dict[str, Any] = {
    "name": "kill",
    "data": {
        "train": {"path": "builtin:copy/train?n=150&length=5&symbols=6"},
        "dev": {"path": "builtin:copy/dev?n=12&length=5&symbols=6"},
        "max_tokens": 12,
    },
    "text": {"kind": "words"},
    "model": {
        "d_model": 16,
        "n_heads": 2,
        "d_ff": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "dropout": 0.1,
    },
    "optim": {"lr": 0.01, "warmup": 5},
    "train": {
        "steps": 20,
        "batch_tokens": 128,
        "precision": "fp32",
        "eval_every": 5,
        "save_every": SAVE_EVERY,
        "log_every": 1,
        "average": 3,
        "keep_best": 2,
        "ema": 0.5,
    },
    "eval": {"sentences": 4},
}
CLOCKS = {"timing.jsonl", "status.json", "env.json"}  # the only files that may differ


def child(root: Path) -> int:
    """Fork a process that runs the one command; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        from qkv.run import train

        (root / "folder").write_text(str(train(RECIPE, root=root / "runs").folder), "utf-8")
        code = 0
    except BaseException as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def attempt(root: Path, delay: float | None) -> bool:
    """Run the command, killing it after `delay` seconds; True where the kill met it alive.

    Raises RuntimeError where the command itself fails."""
    pid = child(root)
    if delay is not None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    code = wait(pid)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the command failed with exit code {code} in {root}")
    return code == -signal.SIGKILL


def lost(root: Path) -> int:
    """Steps a kill has cost: those logged beyond the last checkpoint."""
    from qkv.config import read_json
    from qkv.learn.track import read_metrics

    runs = sorted((root / "runs").glob("kill-*"))
    if not runs or not (runs[-1] / "metrics.jsonl").is_file():
        return 0
    done = max((r["step"] for r in read_metrics(runs[-1] / "metrics.jsonl")), default=0)
    position = runs[-1] / "resume" / "position.json"
    return done - (read_json(position)["step"] if position.is_file() else 0)


def left(root: Path) -> dict[str, str]:
    """sha256 of every file of the finished run, by its path; "" for those that hold the time."""
    folder = Path((root / "folder").read_text("utf-8"))
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: "" if name in CLOCKS else sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(files.items())
    }


def case(root: Path, rng: random.Random, duration: float) -> tuple[int, int]:
    """One run with its kills, to the end: (kills, most steps lost)."""
    kills, worst, again = 0, 0, True
    while again:
        killed = attempt(root, rng.uniform(0, duration))
        kills += killed
        worst = max(worst, lost(root)) if killed else worst
        again = killed and rng.random() < 1 / 3
    if killed:
        attempt(root, None)
    return kills, worst


def bench(total: int, seed: int, place: Path) -> int:
    """Kill until `total` kills are made; the exit code."""
    import sacrebleu  # noqa: F401  what a run imports late is imported once, here
    import torch

    import qkv.look.plots
    import qkv.run

    torch.set_num_threads(1)
    # drawing takes longer than all the rest of so small a run: the picture is a stand-in, its writing is not
    qkv.look.plots.curve_png = lambda series, **how: repr((series, how)).encode()  # type: ignore[assignment]
    (place / "whole").mkdir()
    attempt(place / "whole", None)  # warms the caches of the disk
    shutil.rmtree(place / "whole" / "runs")
    began = time.monotonic()
    attempt(place / "whole", None)
    duration = time.monotonic() - began
    want, rng = left(place / "whole"), random.Random(seed)
    needed = {f"{m}/model.safetensors" for m in ("best", "last", "average")}
    if missing := (needed | {"metrics.jsonl", "samples.jsonl"}) - want.keys():
        raise RuntimeError(f"the uninterrupted run left no {missing}")
    print(
        f"seed {seed}; an uninterrupted run takes {duration:.2f} s, {len(want)} files", flush=True
    )
    kills = cases = same = worst = 0
    began = time.monotonic()
    while kills < total:
        root = place / f"case-{cases}"
        root.mkdir()
        made, cost = case(root, rng, duration)
        found = left(root)
        wrong = sorted(n for n in want.keys() | found.keys() if want.get(n) != found.get(n))
        same += made if not wrong else 0
        tens = kills // 10
        kills, cases, worst = kills + made, cases + 1, max(worst, cost)
        if wrong:
            print(f"case {cases - 1} (kept in {root}) differs: {', '.join(wrong)}", flush=True)
        else:
            shutil.rmtree(root)
        if kills // 10 > tens:
            print(f"{same}/{kills} identical, {time.monotonic() - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(
        f"{same}/{kills} identical ({cases} runs, {seconds:.0f} s, "
        f"at most {worst} steps lost, saved every {SAVE_EVERY})"
    )
    return 0 if same == kills and worst <= SAVE_EVERY else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    # a kill leaves what the kernel holds, so memory serves as well as a disk; a power cut is the store's test
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="qkv-kill-", dir=memory if memory.is_dir() else None))
    code = bench(args.kills, args.seed, place)
    if code == 0:
        shutil.rmtree(place)
    return code


if __name__ == "__main__":
    sys.exit(main())
