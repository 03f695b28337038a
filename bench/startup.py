"""Start-up: the seconds a person waits for `qkv --help`, `import qkv`, and one translation from a cold start.

    python bench/startup.py [--model RUN] [--samples 5] [--out startup.json]

Without --model a random Transformer-Tiny with 10,000 pieces is written to a temporary folder.  Every sample is a process of
its own; one unmeasured start warms the file cache, so this is a cold process and not a cold disk."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import side

LIMITS = {"qkv --help": 0.3, "qkv translate (one sentence)": 3.0}


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def random_model(folder: Path, pieces: int) -> None:
    command = [sys.executable, __file__, "--write", str(folder), "--pieces", str(pieces)]
    subprocess.run(command, check=True)


def write(folder: Path, pieces: int) -> None:
    import torch

    from qkv.data.phrases import pairs
    from qkv.model import Model
    from qkv.models import build, configure
    from qkv.text import TextConfig, train

    lines = [text for pair in pairs("train")[:5000] for text in pair[:2]]
    tokenizer = train(lines, TextConfig(kind="bpe", vocab_size=pieces))
    torch.manual_seed(0)
    config = configure(
        {"family": "transformer", "size": "tiny", "vocab_size": tokenizer.vocab_size}
    )
    Model(build(config), tokenizer, config).save(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", help="a run or model folder; default: random weights")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--pieces", type=int, default=10_000)
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("--out", help="a JSON file with every sample")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        return write(Path(args.write), args.pieces)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or folder + "/model"
        if not args.model:
            random_model(Path(model), 1500 if args.tiny else args.pieces)
        measure(args, model)


def measure(args: argparse.Namespace, model: str) -> None:
    qkv = [sys.executable, "-m", "qkv.cli"]
    script = Path(sys.executable).with_name("qkv")
    qkv = [str(script)] if script.is_file() else qkv
    commands = {
        "python (nothing)": [sys.executable, "-c", ""],
        "qkv --help": [*qkv, "--help"],
        "import qkv": [sys.executable, "-c", "import qkv"],
        "import torch": [sys.executable, "-c", "import torch"],
        "qkv translate (one sentence)": [*qkv, "translate", "--model", model, "커피 한잔 어때?"],
    }
    n = 1 if args.tiny else args.samples
    for command in commands.values():
        seconds(command)
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(n):
        for name, command in commands.items():
            samples[name].append(seconds(command))
    rows = [
        (name, f"{statistics.median(s):.2f}", f"{min(s):.2f} - {max(s):.2f}", LIMITS.get(name, ""))
        for name, s in samples.items()
    ]
    facts = {"machine": side.machine(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))}
    facts |= {"settings": vars(args), "samples": samples}
    text = side.table(("what", "median s", "min - max", "goal"), rows)
    side.report(f"Start-up, median of {n}", text, facts, args.out)


if __name__ == "__main__":
    main()
