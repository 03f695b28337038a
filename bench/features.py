"""How near random features come to the softmax: the picture and the table of docs/families/performer.md.

    python bench/features.py [--tiny] [--draws 1500] [--png docs/img/performer.png] [--out features.json]

Left: the mean squared error of exp(q·k) for one pair with |q + k| = 1, D 16, beside lemma 2 of Choromanski et al. 2021, which
is for independent features.  Right: a map of 48 tokens that features imply, beside that of the softmax."""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from side import machine, report, table
from torch import Tensor

from qkv.parts.attention import weigh
from qkv.parts.favor import Favor, Features, draw, estimate
from qkv.parts.patterns import Allowed, Full

D, N, WIDTH = 16, 48, 32


def of_a_pair(counts: list[int], draws: int) -> list[dict[str, float]]:
    """The law, and the mean squared errors of independent and of orthogonal features."""
    rng = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, D, generator=rng, dtype=torch.float64)
    q, k = q / (q + k).norm(), k / (q + k).norm()
    exact, found = float((q * k).sum().exp()), []
    for m in counts:
        independent = torch.randn(draws, m, D, generator=rng, dtype=torch.float64)
        orthogonal = (draw(m, D, 7, i).double() for i in range(draws))
        errors = [
            float(torch.stack([(estimate(q, k, w) - exact).square() for w in ws]).mean())
            for ws in (independent, orthogonal)
        ]
        law = math.e * exact**2 * (1 - 1 / math.e) / m
        found.append({"features": m, "law": law, "independent": errors[0], "orthogonal": errors[1]})
    return found


def of_a_map(counts: list[int], draws: int) -> tuple[list[dict[str, float]], dict[int, Tensor]]:
    """How much of a row's weight is elsewhere, and the maps; 0 stands for the exact one."""
    torch.manual_seed(3)
    x = torch.randn(N, WIDTH)
    x = 0.8 * (x + 0.9 * x.roll(1, 0))
    q, k = x[None, None], (x + 0.3 * torch.randn(N, WIDTH))[None, None]
    allowed, scale = Allowed.of(Full(), torch.ones(1, N, dtype=torch.bool)), WIDTH**-0.5
    maps, found = {0: weigh(q, k, allowed, scale=scale)[0, 0]}, []
    for m in counts:
        moved = []
        for i in range(draws):
            favor = Favor(Features(count=m), WIDTH)
            favor.redraw(2, i)
            made = favor.weights(q, k, allowed, scale=scale)[0, 0]
            maps.setdefault(m, made)
            moved.append(float((made - maps[0]).abs().sum(1).mean() / 2))
        found.append({"features": m, "moved": sum(moved) / draws})
    return found, maps


def picture(pair: list[dict[str, float]], maps: dict[int, Tensor]) -> Any:
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 3.5), dpi=130, layout="constrained")
    curve, *panels = figure.subplots(1, 4, width_ratios=[1.5, 1, 1, 1])
    m = [row["features"] for row in pair]
    for key, mark, colour, name in (
        ("law", "-", "#888888", "lemma 2 (independent)"),
        ("independent", "o", "#d1662a", "independent, measured"),
        ("orthogonal", "s", "#2178b4", "orthogonal, measured"),
    ):
        curve.loglog(m, [row[key] for row in pair], mark, color=colour, label=name)
    curve.set_xlabel("features m")
    curve.set_title("mean squared error of exp(q·k)", fontsize=9)
    curve.legend(fontsize=7, frameon=False)
    curve.spines[["top", "right"]].set_visible(False)
    few, many = min(k for k in maps if k), max(maps)
    for axes, i in zip(panels, (few, many, 0), strict=True):
        top = float(maps[0].sqrt().max())
        axes.imshow(maps[i].sqrt(), cmap="Blues", vmin=0, vmax=top)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"approximate, m = {i:,}" if i else "exact softmax", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="a smoke test")
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--png")
    parser.add_argument("--out")
    args = parser.parse_args()
    draws = 20 if args.tiny else args.draws
    pair = of_a_pair([4, 16] if args.tiny else [4, 8, 16, 32, 64, 128, 256], draws)
    counts = [16, 64] if args.tiny else [64, 256, 1024, 4096]
    shares, maps = of_a_map(counts, 2 if args.tiny else 6)
    if args.png:
        picture(pair, maps).savefig(Path(args.png))
    head = ["features", "lemma 2", "independent", "orthogonal"]
    text = table(head, [list(row.values()) for row in pair])
    head = ["features", "weight that is elsewhere, %"]
    text += "\n\n" + table(head, [[r["features"], 100 * r["moved"]] for r in shares])
    facts = {"machine": machine(torch.get_num_threads()), "pair": pair, "maps": shares}
    report("Random features", text, facts, args.out)


if __name__ == "__main__":
    main()
