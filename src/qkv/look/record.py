"""See what a model looks at, with the fast kernels on: the answer does not change by a bit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..parts.attention import Attention, Probe, weigh


@contextmanager
def record(
    model: Any, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> Iterator[dict[str, Tensor]]:
    """{"decoder.stack.blocks.3.cross": (B, H, T, S)} of the passes made inside; rows sum to 1.

    A layer called step by step (an RNN's decoder) gives its rows in the order of the steps.  `layers` and `heads` choose
    which to keep: all others cost nothing.  Maps are recomputed from the same q and k; the fused kernel still gives the answer.
    Raises UsageError for a layer or head the model does not have."""
    net: nn.Module = getattr(model, "net", model)
    found = [(n, m) for n, m in net.named_modules() if isinstance(m, Attention)]
    chosen = [(n, m) for n, m in found if layers is None or _layer(n) in layers]
    known = sorted({_layer(n) for n, _ in found})
    if strange := [i for i in layers or () if i not in known]:
        raise UsageError(
            f"layers {strange}: no such layer",
            fix=f"0 … {known[-1]}" if known else "this model has no attention",
        )
    for _, m in chosen:
        if heads is not None and not all(0 <= h < m.n_heads for h in heads):
            raise UsageError(f"heads {list(heads)}: no such head", fix=f"0 … {m.n_heads - 1}")
    maps: dict[str, Tensor] = {}
    before = [(m, m.probe) for _, m in chosen]
    for name, m in chosen:
        m.probe = _probe(maps, name, heads)
    try:
        yield maps
    finally:
        for m, probe in before:
            m.probe = probe


def _layer(name: str) -> int:
    """encoder.stack.blocks.3.attn -> 3; a module outside any block counts as 0."""
    return next((int(part) for part in name.split(".") if part.isdigit()), 0)


def _as_wide(*maps: Tensor) -> list[Tensor]:
    """Maps over as many keys as the widest: what was not there yet was not looked at.  A decoder's past grows."""
    S = max(m.shape[-1] for m in maps)
    return [torch.nn.functional.pad(m, (0, S - m.shape[-1])) for m in maps]


def _probe(maps: dict[str, Tensor], name: str, heads: Sequence[int] | None) -> Probe:
    def probe(weights: Tensor) -> None:
        kept = weights.detach() if heads is None else weights.detach()[:, list(heads)]
        old = maps.get(name)
        if old is not None and len(old) != len(kept):
            raise UsageError(
                f"{name} looked at {len(old)} rows, now {len(kept)}: their maps do not join",
                fix="record one batch at a time",
            )
        maps[name] = kept if old is None else torch.cat(_as_wide(old, kept), dim=2)

    return probe


Given = tuple[Any, ...]  # q, k, v, allowed


@contextmanager
def record_pairs(model: Any) -> Iterator[dict[str, Tensor]]:
    """{"encoder.blocks.0.attn": (B, 1 or H, T, S) bool}: which pairs each layer was allowed to look at, in the last pass."""
    with _given(model, lambda attn, given: attn.sees(given[3])) as found:
        yield found


@contextmanager
def record_exact(model: Any) -> Iterator[dict[str, Tensor]]:
    """The maps (B, H, T, S) that the softmax itself has for the q and k of the last pass, of each layer that only
    approximates it: `record` gives what such a layer sums with, its implied map."""

    def exact(attn: Attention, given: Given) -> Tensor | None:
        q, k, _, allowed = given
        return None if attn.favor is None else weigh(q, k, allowed, scale=attn.scale)

    with _given(model, exact) as found:
        yield found


@contextmanager
def _given(model: Any, make: Callable[[Any, Given], Tensor | None]) -> Iterator[dict[str, Tensor]]:
    """What `make` makes of each attention's arguments, by name; layers for which it gives None are left out."""
    net: nn.Module = getattr(model, "net", model)
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(attn: Any, given: Given, _: Any) -> None:
            if (made := make(attn, given)) is not None:
                found[name] = made

        return keep

    handles = [
        m.register_forward_hook(hook(n)) for n, m in net.named_modules() if isinstance(m, Attention)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
