"""What the laws are checked on where a net reads pictures: random pixels with labels, and how such a net is shrunk."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .learn.terms import term_loss, terms_of
from .shapes import Batch

EDGE = 24  # pixels of a picture for a net that reads any size
# of a shrunk net: a picture of nine patches, two convolutions
SMALL = {"image_size": 12, "patch_size": 4, "widths": (4, 8), "strides": (), "depths": (1, 1)}
SMALL |= {"d_stem": 4, "d_pooled": None, "problem": "one"}


def sees(net: Any) -> bool:
    """Does it read pictures?"""
    return hasattr(net, "channels")


def pictures(net: Any, n: int, seed: int = 0) -> Batch:
    """n random pictures as the net is made for, each with a label; of a detector each with two boxes."""
    g = torch.Generator().manual_seed(seed)
    height, width = net.image_size or (EDGE, EDGE)
    nothing = torch.zeros(n, 0)
    batch = Batch(nothing.long(), nothing.bool())
    batch = replace(batch, pixels=torch.randn(n, net.channels, height, width, generator=g))
    if not hasattr(net, "queries"):
        return replace(batch, label=torch.arange(n) % labels(net))
    boxes = torch.rand(n, 2, 4, generator=g) * 0.3 + 0.2
    return replace(batch, label=torch.arange(2 * n).view(n, 2) % labels(net), boxes=boxes)


def labels(net: Any) -> int:
    """Of its head, 1 where there is none."""
    head = getattr(net, "head", None)
    last = getattr(getattr(head, "classes", None), "out", None)
    return int(last.out_features) if last is not None else 1


def numbers(net: Any, batch: Batch) -> Tensor:
    """What must keep its bits: logits, or the states of a net without a head."""
    kind = getattr(getattr(net, "head", None), "kind", "boxes")
    made: Tensor = net.encode(batch).states if kind == "none" else net.logits(batch)
    return made


def shrunk(old: dict[str, Any]) -> dict[str, Any]:
    """The settings of a tiny net of the same kind, given those of the large one."""
    usual = "boxes" if "queries" in old else "classes"
    head = usual if old["head"] == "none" else old["head"]
    return {k: v for k, v in SMALL.items() if k in old} | {"head": head, "labels": ("a", "b", "c")}


def moved(net: nn.Module) -> nn.Module:
    """The net of pictures with biases that are not 0: where a channel is silent, a relu after it would stand at its kink,
    and have no derivative there."""
    for name, p in net.named_parameters() if sees(net) else ():
        if name.endswith("norm.bias"):
            nn.init.uniform_(p, 0.05, 0.3)
    return net


def loss(net: Any, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, float]:
    """(what is minimised, in nats how surprising the labels are), sums of terms each divided by its count.

    A detector's labels are the classes of what it found: boxes come nearer for ever, and are never exact."""
    terms = terms_of(net.loss_inputs(batch))
    made = [term_loss(term, smoothing) for term in terms]
    sizes = [max(1, m.tokens) for m in made]
    told = [not hasattr(net, "queries") or term.name.startswith("class") for term in terms]
    plain = sum(float(m.nll) / n for m, n, t in zip(made, sizes, told, strict=True) if t)
    return torch.stack([m.smoothed / n for m, n in zip(made, sizes, strict=True)]).sum(), plain
