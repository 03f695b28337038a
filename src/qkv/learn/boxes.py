"""Boxes: how they overlap, which query answers for which, and what is lost (Carion et al. 2020, section 3.1).

A detector says N boxes of each picture and M <= N or more are there.  The assignment σ with the least cost

    Σ_i  - a p_σ(i)(c_i)  +  b |b_i - b̂_σ(i)|_1  -  g GIoU(b_i, b̂_σ(i))

says which query answers for which box; the others must say nothing.  The losses are sums, which the loop divides by counts
of the whole step (law 11): Σ of class weights, and the number of boxes, at least 1."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MissingError
from ..models.interface import BoxWeights, Detected, Summed
from ..shapes import Batch

NOTHING = 1e-9  # of a picture's area: less has no shape to compare
WORST = 1e30  # the cost of what is not a number: taken only where nothing else is left


def corners(boxes: Tensor) -> Tensor:
    """centre x, y, width, height -> x0, y0, x1, y1: (…, 4) -> (…, 4)."""
    x, y, w, h = boxes.unbind(-1)
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], -1)


def area(box: Tensor) -> Tensor:
    """Of x0, y0, x1, y1, (…, 4) -> (…); 0 where a side is negative."""
    return (box[..., 2] - box[..., 0]).clamp(min=0) * (box[..., 3] - box[..., 1]).clamp(min=0)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """|A ∩ B| / |A ∪ B| - |C \\ (A ∪ B)| / |C|, C the smallest box around both (Rezatofighi et al. 2019, algorithm 1).

    x0, y0, x1, y1, (…, 4) each, broadcast -> (…) in [-1, 1]; 1 where they are the same.  Boxes without an area have no overlap."""
    both = torch.cat(
        [torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1
    )
    hull = torch.cat(
        [torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1
    )
    shared, around = area(both), area(hull)
    union = area(a) + area(b) - shared
    return shared / union.clamp(min=NOTHING) - (around - union) / around.clamp(min=NOTHING)


@torch.no_grad()
def costs(logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, w: BoxWeights) -> Tensor:
    """What it costs to let query n answer for box m: (B, N, K + 1), (B, N, 4), (B, M), (B, M, 4) -> (B, N, M)."""
    p = logits.softmax(-1)
    right = p.gather(2, labels.clamp(min=0)[:, None].expand(-1, p.shape[1], -1))  # (B, N, M)
    apart = torch.cdist(boxes, truth, p=1)
    near = giou(corners(boxes)[:, :, None], corners(truth)[:, None])
    made = w.match_box * apart - w.match_class * right - w.match_giou * near
    return made.nan_to_num(nan=WORST, posinf=WORST, neginf=WORST)


def match(
    logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, w: BoxWeights
) -> tuple[Tensor, Tensor, Tensor]:
    """The assignment of least cost: row, query and box of every pair, each (P) int64 on a CPU.

    min(N, boxes of the picture) pairs a picture; labels (B, M) are -1 where there is no box."""
    cost, there = costs(logits, boxes, labels, truth, w).cpu().numpy(), (labels >= 0).cpu()
    solve, found = solver(), []
    for row, real in enumerate(there):
        which = real.nonzero()[:, 0]
        query, box = solve(cost[row][:, which.numpy()])
        rows = torch.full((len(query),), row)
        found.append(torch.stack([rows, torch.as_tensor(query), which[torch.as_tensor(box)]]))
    rows, queries, chosen = torch.cat(found, 1) if found else torch.zeros(3, 0, dtype=torch.long)
    return rows, queries, chosen


def solver() -> Callable[[Any], tuple[Any, Any]]:
    """SciPy's solution of the assignment problem (Crouse 2016).  Raises MissingError QKV-022 where SciPy is not here."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise MissingError(
            "boxes are matched by SciPy, which is not installed",
            fix='pip install "qkv[vision]"',
            code="QKV-022",
        ) from None
    return linear_sum_assignment  # type: ignore[no-any-return]


def sums(
    logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, w: BoxWeights
) -> dict[str, Tensor]:
    """{"class": Σ w_c · -log p(c), "box": Σ |b - b̂|_1, "giou": Σ (1 - GIoU)} of one layer's answers (B, N, …).

    The class weight is 1 for a query with a box and `nothing` for one without."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    logits, boxes, truth = logits.to(exact), boxes.to(exact), truth.to(exact)
    row, query, box = (i.to(logits.device) for i in match(logits, boxes, labels, truth, w))
    nothing = logits.shape[-1] - 1
    target = labels.new_full(logits.shape[:2], nothing)
    target[row, query] = labels[row, box]
    weight = logits.new_ones(nothing + 1)
    weight[nothing] = w.nothing
    lost = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, reduction="sum")
    said, there = boxes[row, query], truth[row, box]
    return {
        "class": lost,
        "box": (said - there).abs().sum(),
        "giou": (1 - giou(corners(said), corners(there))).sum(),
    }


def boxes_of(batch: Batch) -> float:
    """How many boxes a batch has."""
    return 0.0 if batch.label is None else float((batch.label >= 0).sum())


def class_weights(batch: Batch, n_queries: int, nothing: float) -> float:
    """Σ of the class weights of all queries: 1 for each that answers for a box, `nothing` for the others."""
    if batch.label is None:
        return len(batch) * n_queries * nothing
    pairs = float((batch.label >= 0).sum(1).clamp(max=n_queries).sum())
    return pairs + nothing * (len(batch) * n_queries - pairs)


def detection_terms(d: Detected) -> tuple[Summed, ...]:
    """class, box and giou of the last layer, then of the earlier ones ("class/0", …), each with its weight in the loss."""
    w, n_layers = d.weights, len(d.logits)
    count = partial(class_weights, n_queries=d.logits.shape[2], nothing=w.nothing)
    made = []
    with torch.autocast(d.logits.device.type, enabled=False):
        for i in (n_layers - 1, *range(n_layers - 1)):
            end = "" if i == n_layers - 1 else f"/{i}"
            found = sums(d.logits[i], d.boxes[i], d.labels, d.truth, w)
            made += [
                Summed(found["class"], count, f"class{end}"),
                Summed(w.box * found["box"], boxes_of, f"box{end}"),
                Summed(w.giou * found["giou"], boxes_of, f"giou{end}"),
            ]
    return tuple(made)


@torch.no_grad()
def cardinality(logits: Tensor, labels: Tensor) -> Tensor:
    """By how many objects each picture's count is wrong, (B, N, K + 1) and (B, M) -> (B): a metric, not a loss."""
    said = (logits.argmax(-1) != logits.shape[-1] - 1).sum(1)
    return (said - (labels >= 0).sum(1)).abs()
