"""GPT on tiny Shakespeare by characters: our loop beside a plain one, side by side; and the whole run with its validation loss.

    python bench/nano.py [--threads 2] [--samples 5] [--steps 20] [--out nano.json]        tokens per second of a training step
    python bench/nano.py --whole [--threads 2]         all 2,000 iterations, start-up and evaluations included: seconds and losses

4 layers, 4 heads, C 128, context 64, batch 12, no dropout, 65 characters: nanoGPT's setting for a CPU.  The peers are written here.
`nanogpt` is the way its loop is: one product for q, k and v, torch's causal attention, tied output, random windows cut from a
memory-mapped file one by one, cross entropy over all positions, clipping, AdamW (fused on CUDA only, as it asks for it), cosine.
`plain` is a better one: the text in memory, AdamW fused on the CPU too.  Ours is the step of `qkv.learn.loop.Trainer` on the
recipe's own stream, nothing less.  Without the shared data all read random characters: speed does not depend on them."""

import argparse
import gzip
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import side

NAMES = ("ours-fp32", "nanogpt-fp32", "plain-fp32", "plain-fp32-compile")
V, C, T, B, H, N = 65, 128, 64, 12, 4, 4
Step = Callable[[], float]


def text() -> str:
    root = Path(os.environ.get("QKV_SHARED", Path(__file__).parents[2] / "shared"))
    file = root / "data" / "lm-tinyshakespeare" / "input.txt.gz"
    if file.is_file():
        return gzip.decompress(file.read_bytes()).decode()
    rng = random.Random(0)
    return "".join(chr(32 + rng.randrange(V)) for _ in range(200_000))


def ours(how: list[str]) -> Step:
    import numpy as np

    from qkv.data.objectives import Specials, feed
    from qkv.data.objectives.causal import Windows, WindowsConfig
    from qkv.learn.loop import Position, TrainConfig, Trainer
    from qkv.learn.optim import OptimConfig
    from qkv.models import build, configure

    letters = sorted(set(text()))
    number = {c: i for i, c in enumerate(letters)}
    ids = np.array([number[c] for c in text()], dtype=np.int32)
    values = {
        "activation": "gelu",
        "bias": False,
        "family": "gpt2",
        "size": "nano",
        "vocab_size": V + 4,
        "dropout": 0.0,
        "attn_dropout": 0.0,
    }
    nothing: Any = SimpleNamespace()
    trainer = Trainer(
        net=build(configure(values)),
        stream=feed(Windows(WindowsConfig(context=T), ids, Specials()), B * T, 1),
        config=TrainConfig(precision=how[0], smoothing=0.0),  # type: ignore[arg-type]
        optim=OptimConfig(lr=1e-3, schedule="cosine", warmup=100, clip=1.0),
        seed=1,
        keeper=nothing,
        log=nothing,
        validate=lambda net, step: {},
    )
    at = Position()

    def step() -> float:
        nonlocal at
        k = at.step + 1
        loss, _ = trainer.gradients(k, trainer.micro_batches(k))
        at, _, _ = trainer.update(Position(step=k, applied=k - 1), float(loss))
        return float(loss)

    return step


def peer(kind: str, how: list[str]) -> Step:
    step, _, _, data = peer_parts(kind, how)
    return lambda: step(data, 1e-3)


def peer_parts(
    kind: str, how: list[str]
) -> tuple[Callable[[Any, float], float], Callable[[Any], Any], Any, Any]:
    """(step, windows, net, data) of the peer `kind`."""
    import tempfile

    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.LayerNorm(C, bias=False), nn.LayerNorm(C, bias=False)
            self.qkv, self.out = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C, bias=False)
            self.up, self.down = nn.Linear(C, 4 * C, bias=False), nn.Linear(4 * C, C, bias=False)

        def forward(self, x: Any) -> Any:
            q, k, v = (
                part.view(B, T, H, C // H).transpose(1, 2)
                for part in self.qkv(self.one(x)).split(C, dim=2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
            return x + self.down(F.gelu(self.up(self.two(x))))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(V, C), nn.Embedding(T, C)
            self.blocks = nn.ModuleList(Block() for _ in range(N))
            self.norm, self.head = nn.LayerNorm(C, bias=False), nn.Linear(C, V, bias=False)
            self.head.weight = self.token.weight

        def forward(self, x: Any, y: Any) -> Any:
            h = self.token(x) + self.place(torch.arange(T))
            for block in self.blocks:
                h = block(h)
            logits = self.head(self.norm(h))
            return F.cross_entropy(logits.view(-1, V), y.view(-1))

    letters = sorted(set(text()))
    number = {c: i for i, c in enumerate(letters)}
    ids = np.array([number[c] for c in text()], dtype=np.uint16)
    own = kind == "nanogpt"
    data: Any
    if own:
        file = tempfile.NamedTemporaryFile(suffix=".bin")
        ids.tofile(file)
        file.flush()
        data = np.memmap(file, dtype=np.uint16, mode="r")
    else:
        data = torch.from_numpy(ids.astype(np.int64))
    net = Net()
    call = torch.compile(net) if "compile" in how else net
    for name, p in net.named_parameters():
        if p.dim() > 1:
            small = name.endswith(("out.weight", "down.weight"))
            nn.init.normal_(p, std=0.02 / (2 * N) ** 0.5 if small else 0.02)
    groups = [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=not own)

    def window(part: Any, i: int) -> Any:
        return torch.from_numpy(part[i : i + T].astype(np.int64)) if own else part[i : i + T]

    def windows(part: Any) -> Any:
        starts = torch.randint(len(part) - T, (B,)).tolist()
        return [torch.stack([window(part, i + j) for i in starts]) for j in (0, 1)]

    def step(part: Any, lr: float) -> float:
        x, y = windows(part)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = call(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step, windows, net, data


def whole_peer(kind: str, threads: int) -> None:
    """2,000 iterations with the evaluations of nanoGPT's CPU example: every 250, 20 batches of each half."""
    import math

    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1337)
    step, windows, net, data = peer_parts(kind, [])
    cut = int(0.9 * len(data))

    def loss(part: Any) -> float:
        with torch.no_grad():
            return float(net(*windows(part)))

    for k in range(2001):
        if k % 250 == 0:
            halves = [sum(loss(part) for _ in range(20)) / 20 for part in (data[:cut], data[cut:])]
            print(k, "train, val:", *(f"{x:.4f}" for x in halves), flush=True)
        rate = k / 100 if k < 100 else 0.1 + 0.45 * (1 + math.cos(math.pi * (k - 100) / 1900))
        step(data[:cut], 1e-3 * rate)
    with torch.no_grad():
        ids = torch.tensor(data[cut:].tolist())
        rows = ids[: (len(ids) - 1) // T * T + 1]
        x, y = rows[:-1].view(-1, T), rows[1:].view(-1, T)
        n = len(x) // B * B
        every = [float(net(x[i : i + B], y[i : i + B])) for i in range(0, n, B)]
    print(f"val, all windows: {sum(every) / len(every):.4f}", flush=True)


def whole(args: argparse.Namespace) -> None:
    """Each from process start to process end."""
    import subprocess
    import sys
    import tempfile

    root = Path(os.environ.get("QKV_SHARED", Path(__file__).parents[2] / "shared"))
    file = root / "data" / "lm-tinyshakespeare" / "input.txt.gz"
    env = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(__file__).parents[1] / "src" / "qkv" / "recipes" / "shakespeare.toml"
        paths = [f"data.{half}.path={file}" for half in ("train", "dev")]
        commands = {
            "ours": [sys.executable, "-m", "qkv", "train", str(recipe), *paths, "--root", folder],
            **{
                kind: [sys.executable, __file__, "--whole-peer", kind, f"--threads={args.threads}"]
                for kind in ("nanogpt", "plain")
            },
        }
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, env=env, check=True)
            print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)


def work(args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    kind, *how = args.worker.split("-")
    step = ours(how) if kind == "ours" else peer(kind, how)
    for _ in range(args.warmup):
        step()

    def sample(_: str) -> side.Sample:
        t = time.perf_counter()
        for _ in range(args.steps):
            loss = step()
        return {"per_second": args.steps * B * T / (time.perf_counter() - t), "loss": loss}

    side.serve(sample)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--modes", default=",".join(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of one sample")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("--out", help="a JSON file with every sample")
    parser.add_argument("--whole", action="store_true", help="whole runs instead of steps")
    parser.add_argument("--whole-peer", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.samples, args.steps, args.warmup, args.modes = (
            1,
            1,
            1,
            "ours-fp32,nanogpt-fp32,plain-fp32",
        )
    if args.worker:
        return work(args)
    if args.whole_peer:
        return whole_peer(args.whole_peer, args.threads)
    if args.whole:
        return whole(args)
    options = [f"--{k}={getattr(args, k)}" for k in ("threads", "steps", "warmup")]
    names = args.modes.split(",")
    found = side.side_by_side(__file__, names, options, threads=args.threads, rounds=args.samples)
    samples = {name: asked["go"] for name, asked in found.items()}
    speed = {name: side.median(s, "per_second") for name, s in samples.items()}
    best = max((n for n in names if not n.startswith("ours")), key=lambda n: speed[n])
    rows = []
    for name in names:
        each = [s["per_second"] for s in samples[name]]
        rows.append(
            (
                name,
                speed[name],
                f"{min(each):,.0f} - {max(each):,.0f}",
                f"{speed[name] / speed[best]:.2f}",
            )
        )
    facts = {"machine": side.machine(args.threads), "settings": vars(args), "samples": samples}
    side.report(
        "Training, GPT on characters",
        side.table(("mode", "tokens/s", "min - max", f"x {best}"), rows),
        facts | {"median": speed, "fastest_peer": best},
        args.out,
    )


if __name__ == "__main__":
    main()
