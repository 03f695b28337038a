"""Attention over long sequences, forward and backward: time and memory, ours beside dense attention and its sparse peers.

    python bench/long.py [--lengths 512,…,32768] [--dtypes fp32,bf16] [--threads 2] [--out long.json] [--plot long.png]

One sequence, H 8, D 64, q, k and v given (no projections on any side).  window: radius 256 and one global token;
blocks: BigBird's, 64 tokens each, 3 near, first and last, 3 random.  Peers: transformers' LongformerSelfAttention with
attention_window 512 and one global token, its BigBirdBlockSparseAttention in training mode with block 64, and
performer-pytorch, 266 features on both sides, where it is installed (pip install performer-pytorch).  Every mode is a process
of its own; rounds go A B C, B C A, …: memory is that of a run after all freed memory went back, time that of another right
after it, as training steps follow each other (beyond --warm tokens both are of one run).  Memory that is freed stays with the
process, for every mode, as it does when qkv trains.
`--clock cpu` compares processor time instead of wall time: for a machine that other work shares."""

import argparse
import ctypes
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import side

HEADS, WIDTH = 8, 64
OURS = ("window", "blocks", "performer", "performer-causal")
LEAST, MOST = 4096, 32768  # between which the growth of memory is fitted
Attend = Callable[..., object]  # q, k, v (1, H, n, D) -> y, of any shape


def sdpa(n: int) -> Attend:
    import torch

    return torch.nn.functional.scaled_dot_product_attention


def pattern(text: str) -> Callable[[int], Attend]:
    def made(n: int) -> Attend:
        import torch

        from qkv.parts.attention import attend
        from qkv.parts.patterns import Allowed, parse

        allowed = Allowed.of(parse(text), torch.ones(1, n, dtype=torch.bool))
        allowed.plan(torch.float32, split=False)  # of the batch, shared by all layers
        return lambda q, k, v: attend(q, k, v, allowed, scale=WIDTH**-0.5)

    return made


def longformer(n: int) -> Attend:
    """The reference's layer with its projections replaced by what they would have given."""
    import torch
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    class Given(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.x[: len(x)].clone()  # the layer scales its queries in place

    config = LongformerConfig(
        hidden_size=HEADS * WIDTH, num_attention_heads=HEADS, num_hidden_layers=1,
        attention_window=[512], attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    layer = LongformerSelfAttention(config, 0)
    names = {"query": 0, "key": 1, "value": 2}
    for name in [*names, *(f"{n}_global" for n in names)]:
        setattr(layer, name, Given())

    def attended(*qkv: torch.Tensor) -> torch.Tensor:
        flat = [x.transpose(1, 2).flatten(2).transpose(0, 1) for x in qkv]  # (n, 1, C)
        for name, i in names.items():
            getattr(layer, name).x = getattr(layer, f"{name}_global").x = flat[i]
        marked = torch.zeros(1, n)
        marked[0, 0] = 10000.0
        return layer(
            flat[0].transpose(0, 1), marked.to(qkv[0].dtype), is_index_masked=marked < 0,
            is_index_global_attn=marked > 0, is_global_attn=True,
        )[0]  # fmt: skip

    return attended


def bigbird(n: int) -> Attend:
    import numpy
    import torch
    from transformers import BigBirdConfig
    from transformers.models.big_bird import modeling_big_bird as theirs

    config = BigBirdConfig(
        hidden_size=HEADS * WIDTH, num_attention_heads=HEADS, block_size=64, num_random_blocks=3,
        max_position_embeddings=max(n, 4096),
    )  # fmt: skip
    layer = theirs.BigBirdBlockSparseAttention(config, seed=0).train()
    numpy.random.seed(0)

    made = theirs.BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(1, n), 64)

    def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        blocked, band, rows, columns = (mask.to(q.dtype) for mask in made)
        return layer.bigbird_block_sparse_attention(
            q, k, v, band, rows, columns, blocked, blocked, HEADS, 3, WIDTH, 64, 64, 1, n, n,
            seed=0, plan_from_length=None, plan_num_rand_blocks=None,
        )[0]  # fmt: skip

    return attended


def features(causal: bool) -> Callable[[int], Attend]:
    def made(n: int) -> Attend:
        import torch

        from qkv.parts.favor import Favor, Features
        from qkv.parts.patterns import Allowed, Causal, Full

        favor = Favor(Features(count=266), WIDTH)
        keep = torch.ones(1, n, dtype=torch.bool)
        allowed = Allowed.of(Causal() if causal else Full(), keep)
        return lambda q, k, v: favor(q, k, v, allowed, scale=WIDTH**-0.5)

    return made


def performer_pytorch(causal: bool) -> Callable[[int], Attend]:
    def made(n: int) -> Attend:
        from performer_pytorch import FastAttention

        return FastAttention(dim_heads=WIDTH, nb_features=266, causal=causal)

    return made


MODES: dict[str, Callable[[int], Attend]] = {
    "sdpa": sdpa,
    "window": pattern("window(256) | global(1)"),
    "blocks": pattern("blocks(64)"),
    "longformer": longformer,
    "bigbird": bigbird,
    "performer": features(False),
    "performer-pytorch": performer_pytorch(False),
    "performer-causal": features(True),
    "performer-pytorch-causal": performer_pytorch(True),
}
NEEDS = {"longformer": "transformers", "bigbird": "transformers", "performer-pytorch": "performer_pytorch", "performer-pytorch-causal": "performer_pytorch"}  # fmt: skip


def fits(mode: str, n: int, most_gb: float) -> bool:
    """Longformer's layer wants whole windows; BigBird's writes out (H, n, n) weights and needs more than 11 blocks; the
    causal peer without CUDA holds 3 MB a token."""
    if mode == "performer-pytorch-causal":
        return 3 * n < most_gb * 1024
    if mode == "bigbird":
        return n > 11 * 64 and 1.5 * HEADS * n * n * 4 < most_gb * 2**30
    return mode != "longformer" or n % 512 == 0


def status(key: str) -> float:
    """MB that the kernel has noted for this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(x.split()[1]) for x in lines if x.startswith(key)) / 1024


def work(args: argparse.Namespace) -> None:
    import warnings

    import torch

    from qkv.learn.speed import keep_freed_memory

    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}

    def once(n: int, dtype: torch.dtype, *, again: bool = False) -> side.Sample:
        torch.manual_seed(n)
        q, k, v = (torch.randn(1, HEADS, n, WIDTH).to(dtype).requires_grad_() for _ in range(3))
        attend = MODES[args.worker](n)
        if not again:
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        held, wall, cpu = status("VmRSS"), time.perf_counter(), time.process_time()
        y = attend(q, k, v)
        y.backward(torch.ones_like(y))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if not all(bool(x.grad.isfinite().all()) for x in (q, k, v)):
            raise RuntimeError(f"{args.worker}: a gradient is not finite")
        return {"wall": 1e3 * wall, "cpu": 1e3 * cpu, "mb": status("VmHWM") - held}

    def sample(what: str) -> side.Sample:
        n, dtype = what.split("x")
        if not fits(args.worker, int(n), args.most_gb):
            return {"wall": math.nan, "cpu": math.nan, "mb": math.nan}
        made = once(int(n), types[dtype])
        if int(n) <= args.warm:
            made = once(int(n), types[dtype], again=True) | {"mb": made["mb"]}
        return made

    side.serve(sample)


def slope(lengths: list[int], mb: list[float]) -> float:
    """The exponent e of memory ~ nᵉ, by least squares of the logarithms."""
    return statistics.linear_regression(
        [math.log(n) for n in lengths], [math.log(x) for x in mb]
    ).slope


def draw(path: str, lengths: list[int], kinds: list[str], found: dict, clock: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    panels = [(k, clock, f"ms, forward and backward, {k}") for k in kinds]
    panels.append((kinds[0], "mb", f"peak MB, {kinds[0]}"))
    fig, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels) + 2, 4), layout="constrained")
    for axis, (kind, key, label) in zip(axes, panels, strict=True):
        for mode, values in found.items():
            y = [values.get(f"{n}x{kind}", {}).get(key, math.nan) for n in lengths]
            axis.plot(lengths, y, "-o" if mode in OURS else "--x", label=mode, lw=1.5 if mode in OURS else 1, ms=4)  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axis.set_xticks(lengths, [f"{n:,}" for n in lengths])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    fig.savefig(path, dpi=120)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lengths", default="512,1024,2048,4096,8192,16384,32768")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--few", type=int, default=2, help="rounds beyond --warm tokens")
    parser.add_argument(
        "--warm", type=int, default=4096, help="longest whose time is that of a second run"
    )
    parser.add_argument("--most-gb", type=float, default=12.0, help="leave out what needs more")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("--out", help="a JSON file with every sample")
    parser.add_argument("--plot", help="a PNG")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parsed()
    if args.worker:
        return work(args)
    if args.tiny:
        args.lengths, args.rounds, args.few = "64,1024", 1, 1
    lengths, kinds = [int(n) for n in args.lengths.split(",")], args.dtypes.split(",")
    modes = [m for m in args.modes.split(",") if m not in NEEDS or importlib.util.find_spec(NEEDS[m])]  # fmt: skip
    options = [f"--threads={args.threads}", f"--warm={args.warm}", f"--most-gb={args.most_gb}"]
    samples: dict[str, dict[str, list[side.Sample]]] = {m: {} for m in modes}
    for some, rounds in ((True, args.rounds), (False, args.few)):
        asks = [f"{n}x{k}" for n in lengths for k in kinds if (n <= args.warm) == some]
        if asks:
            made = side.side_by_side(
                __file__, modes, options, threads=args.threads, rounds=rounds, asks=asks
            )
            for mode in modes:
                samples[mode] |= made[mode]
    keys = ("wall", "cpu", "mb")
    found = {
        m: {a: {k: side.median(s, k) for k in keys} for a, s in asked.items()}
        for m, asked in samples.items()
    }
    show(args, lengths, kinds, modes, found, samples)


def show(
    args: argparse.Namespace, lengths: list[int], kinds: list[str], modes: list[str], found: dict, samples: dict
) -> None:  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for kind in kinds:
        for n in lengths:
            at = {m: found[m][f"{n}x{kind}"] for m in modes}
            dense = at.get("sdpa", {}).get(args.clock, math.nan)
            times = (f"{at[m][args.clock]:,.0f} ({at[m][args.clock] / dense:.3f})" for m in modes)
            cells = (*times, *(f"{at[m]['mb']:,.0f}" for m in modes))
            rows.append((kind, n, *("–" if c.startswith("nan") else c for c in cells)))
    fitted = [n for n in lengths if LEAST <= n <= MOST]
    grows = {
        f"{m} {kind}": slope(fitted, [found[m][f"{n}x{kind}"]["mb"] for n in fitted])
        for m in modes for kind in kinds
        if len(fitted) > 1 and not any(math.isnan(found[m][f"{n}x{kind}"]["mb"]) for n in fitted)
    }  # fmt: skip
    head = ("type", "n", *(f"{m} ms (ratio)" for m in modes), *(f"{m} MB" for m in modes))
    text = side.table(head, rows)
    if grows:
        text += "\n\nmemory ~ n^e, " + ", ".join(f"{m} {e:.2f}" for m, e in grows.items())
    if args.plot:
        draw(args.plot, lengths, kinds, found, args.clock)
    facts = {
        "machine": side.machine(args.threads),
        "settings": vars(args),
        "median": found,
        "exponents": grows,
        "samples": samples,
    }
    title = f"Attention, forward and backward, one sequence, {HEADS} heads of {WIDTH}, {args.clock} time"
    side.report(title, text, facts, args.out)


if __name__ == "__main__":
    main()
