"""What can be seen of a model's attention, as small frozen values: numbers in, JSON out.  No torch, no model.

Maps are recorded ones, {"decoder.blocks.3.cross": (B, H, T, S)}, numpy or torch, with or without the batch axis.
Row t of a decoder's map is the moment when target token t is written.  Weights are trimmed to the tokens given,
so padding never shows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import QkvError, UsageError
from .tokens import Token, display, group

Array = NDArray[np.float64]
Group = Literal["encoder", "decoder", "cross"]
GROUPS: tuple[Group, ...] = ("encoder", "decoder", "cross")
UNIT = 0.001  # JSON holds weights as whole thousandths: three decimals in half the bytes
MAX_BYTES = (
    1_300_000  # of one view's weights; with labels that are all escapes a view stays below 2 MB
)
MAX_SIDE = 320  # cells of one map along one axis; more can be neither read nor drawn at once


@dataclass(frozen=True, eq=False)
class Alignment:
    """How much each target token looked at each source token: weights (T, S), rows sum to at most 1.

    Raises UsageError when there are fewer weights than tokens, QkvError (QKV-075) when a weight is not finite."""

    source_tokens: Sequence[str]
    target_tokens: Sequence[str]
    weights: Any
    label: str = ""

    def __post_init__(self) -> None:
        T, S = len(self.target_tokens), len(self.source_tokens)
        weights = _trim(_array(self.weights, 2, "alignment weights"), T, S, "alignment weights")
        _freeze(
            self,
            source_tokens=tuple(self.source_tokens),
            target_tokens=tuple(self.target_tokens),
            weights=weights,
        )

    def to_dict(self) -> dict[str, Any]:
        size = _pool_size([self.weights])
        return {
            "type": "alignment",
            "label": self.label,
            "source": _tokens(self.source_tokens, size),
            "target": _tokens(self.target_tokens, size),
            "unit": UNIT,
            "weights": _thousandths(self.weights, size),
            "pooled": size,
        }

    def _repr_png_(self) -> bytes:
        from .plots import alignment_png

        return alignment_png(self)


@dataclass(frozen=True, eq=False)
class Grid:
    """Every head of every layer: maps {layer name: (H, T, S)} of encoder self, decoder self and cross attention.

    Columns of decoder self attention are what the decoder has read: `start`, then the target but its last token
    (start None: the target itself)."""

    maps: Mapping[str, Any]
    source_tokens: Sequence[str] = ()
    target_tokens: Sequence[str] = ()
    start: str | None = "<bos>"
    row: int = 0  # which sentence, where the maps have a batch axis

    def __post_init__(self) -> None:
        _freeze(
            self,
            source_tokens=tuple(self.source_tokens),
            target_tokens=tuple(self.target_tokens),
        )
        maps = {}
        for name in in_order(self.maps):
            rows, columns = self.axes(kind(name))
            heads = _array(self.maps[name], 3, name, self.row)
            maps[name] = _trim(heads, len(rows), len(columns), name)
        _freeze(self, maps=maps)

    def axes(self, which: Group) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tokens along T and along S of a group's maps."""
        source, target = tuple(self.source_tokens), tuple(self.target_tokens)
        if which == "encoder":
            return source, source
        if which == "cross":
            return target, source
        return target, target if self.start is None else (self.start, *target[:-1])

    def groups(self) -> dict[Group, dict[str, Array]]:
        """{group: {layer name: (H, T, S)}}, only the groups that have maps."""
        found = {g: {n: m for n, m in self.maps.items() if kind(n) == g} for g in GROUPS}
        return {g: layers for g, layers in found.items() if layers}

    def to_dict(self) -> dict[str, Any]:
        size = _pool_size([head for heads in self.maps.values() for head in heads])
        groups = [self._group(g, layers, size) for g, layers in self.groups().items()]
        return {"type": "grid", "unit": UNIT, "groups": groups, "pooled": size}

    def _group(self, which: Group, layers: Mapping[str, Array], size: int) -> dict[str, Any]:
        rows, columns = self.axes(which)
        return {
            "kind": which,
            "rows": _tokens(rows, size),
            "columns": _tokens(columns, size),
            "layers": [
                {
                    "name": name,
                    "entropy": [round(float(e), 2) for e in entropy(heads)],
                    "heads": [_thousandths(h, size) for h in heads],
                }
                for name, heads in layers.items()
            ],
        }


def kind(name: str) -> Group:
    """Which attention a map's name tells of: a part named `cross`; else the encoder's own; else the decoder's."""
    parts = name.split(".")
    if "cross" in parts:
        return "cross"
    return "encoder" if parts[0] == "encoder" else "decoder"


def in_order(names: Iterable[str]) -> list[str]:
    """Names with their numbers read as numbers: blocks.2 comes before blocks.10."""
    return sorted(
        names,
        key=lambda n: [(int(p), p) if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", n)],
    )


def alignment(
    maps: Mapping[str, Any],
    layer: int | Literal["mean"] | None = None,
    head: int | None = None,
    row: int = 0,
) -> Array:
    """The alignment (T, S) of one sentence: by default the mean over the heads of the last cross-attention layer.

    layer: an index (negative from the end) or "mean" over all layers; head: an index or None, the mean; row: which
    sentence of a batch.  Raises UsageError when there is no such layer, head or row."""
    names = [n for n in in_order(maps) if kind(n) == "cross"]
    if not names:
        raise UsageError(
            f"no cross-attention map among {sorted(maps)}",
            fix="record a model that has a source and attention to it",
        )
    if layer != "mean":
        names = [names[_index(-1 if layer is None else layer, len(names), "layer")]]
    stack = np.stack([_heads(_array(maps[n], 3, n, row), head) for n in names])
    return np.asarray(stack.mean(0))


def _heads(heads: Array, head: int | None) -> Array:
    return np.asarray(heads.mean(0) if head is None else heads[_index(head, len(heads), "head")])


def rollout(
    maps: Mapping[str, Any], stack: Literal["encoder", "decoder"] = "encoder", row: int = 0
) -> Array:
    """Attention followed through the layers: Â = (mean over heads of A + I) / 2, rows made to sum to 1,
    Â_L … Â_2 Â_1, (T, T).  Abnar & Zuidema 2020, section 3.  Raises UsageError where the stack has no maps."""
    names = [n for n in in_order(maps) if kind(n) == stack]
    if not names:
        raise UsageError(f"no self-attention map of the {stack} among {sorted(maps)}")
    total: Array | None = None
    for name in names:
        mean = _array(maps[name], 3, name, row).mean(0)
        if mean.shape[0] != mean.shape[1]:
            raise UsageError(f"{name}: rollout needs square maps, got {mean.shape}")
        mixed = (mean + np.eye(len(mean))) / 2  # half of each state is the residual path
        mixed /= mixed.sum(-1, keepdims=True)  # a row that looks at nothing keeps itself
        total = mixed if total is None else mixed @ total
    return np.asarray(total)


def entropy(heads: Any) -> Array:
    """How widely each head looks, (H, T, S) -> (H,): mean over rows of -Σ p log2 p, in bits; empty rows left out.

    0 bits: always one token.  log2 S bits: all tokens alike."""
    p = _array(heads, 3, "maps")
    sums = p.sum(-1, keepdims=True)
    p = np.divide(p, sums, out=np.zeros_like(p), where=sums > 0)
    bits = -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(-1)  # (H, T)
    return np.asarray(bits.sum(-1) / np.maximum((sums[..., 0] > 0).sum(-1), 1))


def pooled(weights: Array, size: int) -> Array:
    """(T, S) -> (⌈T/size⌉, ⌈S/size⌉): a cell stands for size × size tokens and shows the strongest of them."""
    if size == 1:
        return weights
    T, S = weights.shape
    padded = np.pad(weights, ((0, -T % size), (0, -S % size)))
    return np.asarray(padded.reshape(-(-T // size), size, -(-S // size), size).max((1, 3)))


def _array(value: Any, axes: int, what: str, row: int = 0) -> Array:
    """Numbers as float64 with `axes` axes; a batch axis in front is resolved by `row`."""
    if hasattr(value, "detach"):  # a torch tensor, recognised without importing torch
        value = value.detach().float().cpu().numpy()
    found = np.asarray(value, dtype=np.float64)
    if found.ndim == axes + 1:
        found = found[_index(row, len(found), "row")]
    if found.ndim != axes:
        raise UsageError(f"{what}: expected {axes} axes, got shape {found.shape}")
    if not np.isfinite(found).all():
        raise QkvError(f"{what}: not all weights are finite", code="QKV-075")
    if found.size and (found.min() < -1e-3 or found.max() > 1 + 1e-3):
        raise UsageError(
            f"{what}: weights must lie in 0..1, got {found.min():.3g}..{found.max():.3g}",
            fix="give softmax weights, not scores",
        )
    return found


def _trim(weights: Array, T: int, S: int, what: str) -> Array:
    """Only the real tokens: padding stands to the right."""
    if weights.shape[-2] < T or weights.shape[-1] < S:
        raise UsageError(
            f"{what}: {T} × {S} tokens but weights of shape {weights.shape}",
            fix="give the tokens of the sentence that was recorded",
        )
    return weights[..., :T, :S]


def _index(i: int, n: int, what: str) -> int:
    if not -n <= i < n:
        raise UsageError(f"{what} {i} asked for, there are {n} (0 to {n - 1})")
    return i % n


def _freeze(view: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(view, name, value)


def _pool_size(maps: Sequence[Array]) -> int:
    """How many neighbouring tokens share a cell, so that all maps (T, S) of a view stay within MAX_BYTES."""
    longest: int = max([1, *(side for m in maps for side in m.shape)])
    size = -(-longest // MAX_SIDE)
    while size < longest and sum(_bytes(_pool(m, size)) for m in maps) > MAX_BYTES:
        size += 1
    return size


def _bytes(whole: NDArray[np.int64]) -> int:
    """Length of these numbers in JSON: their digits, a comma each and brackets around each row."""
    digits = sum(int(np.count_nonzero(whole >= bound)) for bound in (10, 100, 1000))
    rows, cells = len(whole), int(whole.size)
    return 2 * cells + digits + 2 * rows


def _pool(weights: Array, size: int) -> NDArray[np.int64]:
    """(T, S) -> whole thousandths of the pooled weights."""
    return np.clip(np.rint(pooled(weights, size) / UNIT), 0, 1000).astype(np.int64)


def _thousandths(weights: Array, size: int) -> list[list[int]]:
    rows: list[list[int]] = _pool(weights, size).tolist()
    return rows


def _tokens(tokens: Sequence[str], size: int) -> list[dict[str, str]]:
    shown: list[Token] = group(display(tokens), size)
    return [t.to_dict() for t in shown]
