"""What bf16 costs attention in accuracy: each kernel in bf16 against itself in float32 on the same numbers, forward and backward.

    python bench/rounding.py [--tiny] [--tokens 2048] [--modes sdpa,window,blocks,performer,…] [--out rounding.json]

One sequence, H 8, D 64, modes as in long.py.  The table has |a - b| / |b| in per cent of y, dq, dk, dv for data of several
kinds: what rounding adds to the gradients of q and k depends on the mean of the values, which changes no true gradient."""

import argparse
import importlib.util

import torch
from long import HEADS, MODES, NEEDS, WIDTH
from side import machine, report, table
from torch import Tensor

KINDS = {  # deviation of q and k, mean of v
    "as they are born": (1.0, 0.0),
    "short": (0.3, 0.0),
    "values with a mean of 3": (1.0, 3.0),
    "q and k longer": (1.4, 0.0),
    "longer, values with a mean of 10": (1.4, 10.0),
}
NAMES = ("y", "dq", "dk", "dv")


def found(mode: str, n: int, x: list[Tensor], g: Tensor, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(2)  # of features that are drawn here
    attend = MODES[mode](n)
    x = [t.to(dtype).requires_grad_() for t in x]
    y = attend(*x)
    return [y.detach(), *torch.autograd.grad(y, x, g.view(y.shape).to(y.dtype))]


def errors(mode: str, n: int, deviation: float, mean: float) -> dict[str, float]:
    torch.manual_seed(1)
    q, k, v, g = (torch.randn(1, HEADS, n, WIDTH) for _ in range(4))
    x = [t.bfloat16().float() for t in (q * deviation, k * deviation, v + mean)]
    half, whole = (found(mode, n, x, g, dtype) for dtype in (torch.bfloat16, torch.float32))
    pairs = zip(NAMES, half, whole, strict=True)
    return {name: 100 * float((a.float() - b).norm() / b.norm()) for name, a, b in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument(
        "--modes", default="sdpa,window,blocks,performer,performer-causal,performer-pytorch"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="512 tokens, two modes")
    parser.add_argument("--out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n, modes = args.tokens, args.modes.split(",")
    if args.tiny:
        n, modes = 512, ["sdpa", "performer"]
    modes = [m for m in modes if m not in NEEDS or importlib.util.find_spec(NEEDS[m])]
    made = {m: {kind: errors(m, n, *of) for kind, of in KINDS.items()} for m in modes}
    rows = [
        [kind, *(", ".join(f"{made[m][kind][name]:.2g}" for name in NAMES) for m in modes)]
        for kind in KINDS
    ]
    text = table([f"% of y, dq, dk, dv; {n:,} tokens", *modes], rows)
    report(
        "bf16 against float32", text, {"machine": machine(args.threads), "errors": made}, args.out
    )


if __name__ == "__main__":
    main()
