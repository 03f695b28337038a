"""What a model that reads one text looks at while it reads: GPT, Llama, BERT and their kin, a recurrent classifier."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .decode.rows import prompted
from .errors import DataError, UsageError
from .look.record import record, record_exact, record_pairs
from .model import MULTIPLE, Model
from .read import places
from .shapes import Batch, pad

if TYPE_CHECKING:
    from .look.implied import Implied
    from .look.sparsity import Sparsity
    from .look.views import Grid


@dataclass(frozen=True)
class Reading:
    """One text as the net read it, special tokens included, and every map of that pass, (1, H, T, S), padding cut off.

    Where T is 1 the whole text is read by one query (a recurrent classifier's pooling)."""

    text: str
    tokens: tuple[str, ...]
    maps: dict[str, Tensor]
    pairs: dict[str, Tensor] = field(default_factory=dict)  # (1, 1 or H, T, S) bool: allowed
    # of layers that approximate the softmax, whose `maps` are implied ones: those of the softmax itself
    exact: dict[str, Tensor] = field(default_factory=dict)

    def grid(self) -> "Grid":
        """Every head of every layer; a decoder's row t is the moment when token t has been read."""
        from .look.views import Grid

        whole = {n: m for n, m in self.maps.items() if m.shape[2] == len(self.tokens)}
        return Grid(whole, self.tokens, self.tokens, start=None)

    def sparse(self) -> list[str]:
        """The layers that were not allowed to look at all pairs, by name."""
        return [n for n, m in self.pairs.items() if m.shape[2] > 1 and not bool(m.all())]

    def sparsity(self, layer: int = 0, head: int | None = None) -> "Sparsity":
        """Which pairs a layer allows beside the weights it gave them: one head's, or the mean of all heads.

        Raises UsageError for a layer or a head that is not there."""
        from .look.sparsity import Sparsity

        names = [n for n, m in self.pairs.items() if m.shape[2] == len(self.tokens)]
        name = self._name(names, layer, head)
        heads, allowed = self.maps[name][0], self.pairs[name][0]
        allowed = allowed.expand(len(heads), -1, -1)
        made = (allowed.any(0), heads.mean(0)) if head is None else (allowed[head], heads[head])
        return Sparsity(self.tokens, made[0].int(), made[1], name)

    def implied(self, layer: int = 0, head: int | None = None) -> "Implied":
        """What a layer of random features sums with beside the softmax it stands for: one head's maps, or their means.

        Raises UsageError for a layer or a head that is not there, or where no layer approximates."""
        from .look.implied import Implied

        name = self._name(list(self.exact), layer, head)
        pair = (self.maps[name][0], self.exact[name][0])
        a, b = (m.mean(0) if head is None else m[head] for m in pair)
        return Implied(self.tokens, a, b, name)

    def _name(self, names: list[str], layer: int, head: int | None) -> str:
        if not -len(names) <= layer < len(names):
            raise UsageError(f"layer {layer} of {len(names)}", fix="count from 0, or back from -1")
        n = self.maps[names[layer]].shape[1]
        if head is not None and not -n <= head < n:
            raise UsageError(f"head {head} of {n}", fix="count from 0, or back from -1")
        return names[layer]


def inside(model: Model, text: str, marked: Sequence[int] | None = None) -> Reading:
    """Read a text once and keep what was looked at.  marked: places of global tokens, counted from 0; None: as the
    family marks them.

    Raises DataError for an empty text or one longer than the model's positions, UsageError for a net without attention."""
    ids = _ids(model, text)
    most = getattr(model.net, "max_positions", None)
    if most is not None and len(ids) > most:
        raise DataError(
            f"a text of {len(ids)} tokens, the model has {most} positions",
            fix="give a shorter one",
            code="QKV-037",
        )
    padded, keep = (x[:, :most] for x in pad([ids], model.pad_id, MULTIPLE))
    marks = None
    if marked is not None:
        marks = torch.zeros_like(keep)
        marks[:, [i for i in places(marked) if i < len(ids)]] = True
    batch = Batch(padded, keep, marked=marks).to(model.device)
    net = model.net
    with (
        torch.inference_mode(),
        record(net) as maps,
        record_pairs(net) as pairs,
        record_exact(net) as exact,
    ):
        net.encode(batch)  # type: ignore[operator]
    if not maps:
        raise UsageError(
            f"this {model.family} has no attention to look at",
            fix="train one with model.attention = true",
        )
    S = len(ids)
    cut, seen, wanted = (
        {name: m[:, :, : S if m.shape[2] > 1 else 1, :S] for name, m in found.items()}
        for found in (maps, pairs, exact)
    )
    return Reading(text, tuple(model.tokenizer.tokens(ids)), cut, seen, wanted)


def _ids(model: Model, text: str) -> list[int]:
    """The text in the frame its family reads it in."""
    if not text.strip():
        raise DataError("an empty text", fix="give a sentence", code="QKV-032")
    if prompted(model.net):
        return model.ids(text)
    from .data.objectives import Specials
    from .read import framed

    return framed(Specials.of(model.tokenizer), model.tokenizer.encode(text).ids).ids
