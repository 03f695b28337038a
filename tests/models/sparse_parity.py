"""What the parity of Longformer and BigBird has in common: batches with every kind of answer, and losses from logits."""

from dataclasses import replace
from typing import Any

import parity
import torch
from torch.nn import functional as F

from qkv.shapes import Batch

V = 50
THREE = {0: "no", 1: "yes", 2: "perhaps"}
ONE = {0: "stars"}


def batch_for(config: Any, lengths: tuple[int, ...], low: int = 3, marked: bool = False) -> Batch:
    """Padded rows with random segments, targets and labels; `marked`: a fifth of the tokens, in other places of each row."""
    found = parity.batch(V, lengths, pad_id=config.pad_id or 0)
    g = torch.Generator().manual_seed(3)
    ids = found.source.masked_fill(found.keep & (found.source < low), low)
    B, S = ids.shape
    most = V if config.head in ("mlm", "pretraining") else max(2, len(config.labels))
    return replace(
        found,
        source=ids,
        segment=torch.randint(config.segments, (B, S), generator=g),
        target=torch.randint(most, (B, S), generator=g),
        target_keep=found.keep & (torch.rand(B, S, generator=g) < 0.7),
        label=label_for(config, lengths, g),
        marked=(torch.rand(B, S, generator=g) < 0.2) if marked else None,
    )


def label_for(config: Any, lengths: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    B, n = len(lengths), max(2, len(config.labels))
    if config.head == "span":
        last = torch.tensor([[n - 1] for n in lengths])
        return (torch.rand(B, 2, generator=g) * (last + 1)).long().sort(1).values
    if config.problem == "value":
        return torch.randn(B, len(config.labels), generator=g, dtype=torch.float64)
    if config.problem == "many":
        return torch.randint(2, (B, n), generator=g)
    return torch.randint(n, (B,), generator=g)


def logits_of(head: str, out: Any) -> Any:
    if head == "span":
        return torch.stack([out.start_logits, out.end_logits], -1)
    return out.prediction_logits if head == "pretraining" else out.logits


def reference_loss(config: Any, b: Batch, out: Any) -> torch.Tensor:
    """Their loss from their logits: transformers itself may compute it in float32, and counts padding in spans."""
    if config.head == "none":
        return out.last_hidden_state[b.keep].square().sum()
    z = logits_of(config.head, out)
    if config.head == "span":
        z = z.masked_fill(~b.keep[..., None], -torch.inf)
        ends = (F.cross_entropy(z[..., i], b.label[:, i]) for i in (0, 1))
        return sum(ends) / 2
    if config.head == "classes" and config.problem == "value":
        return F.mse_loss(z, b.label)
    if config.head == "classes" and config.problem == "many":
        return F.binary_cross_entropy_with_logits(z, b.label.double())
    if config.head == "classes":
        return F.cross_entropy(z, b.label)
    tokens = F.cross_entropy(z[b.target_keep], b.target[b.target_keep])
    if config.head == "pretraining":
        tokens = tokens + F.cross_entropy(out.seq_relationship_logits, b.label)
    return tokens


def check_logits(net: Any, config: Any, b: Batch, out: Any, bound: float = 1e-10) -> None:
    ours, want = net.logits(b), logits_of(config.head, out)
    assert ours.shape == want.shape
    keep = torch.ones(len(b), dtype=torch.bool) if config.head == "classes" else b.keep
    assert parity.largest(ours, want, keep) < bound


def states_of(net: Any, b: Batch) -> list[torch.Tensor]:
    """The states after each block."""
    seen: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda m, i, o: seen.append(o[0]))
        for block in net.encoder.blocks
    ]
    net.encode(b)
    for hook in hooks:
        hook.remove()
    return seen
