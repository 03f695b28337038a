"""What a model that reads one text looks at while it reads: GPT, Llama, BERT and their kin, a recurrent classifier."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .decode.rows import prompted
from .errors import DataError, UsageError
from .look.record import record
from .model import MULTIPLE, Model
from .shapes import Batch, pad

if TYPE_CHECKING:
    from .look.views import Grid


@dataclass(frozen=True)
class Reading:
    """One text as the net read it, special tokens included, and every map of that pass, (1, H, T, S), padding cut off.

    Where T is 1 the whole text is read by one query (a recurrent classifier's pooling)."""

    text: str
    tokens: tuple[str, ...]
    maps: dict[str, Tensor]

    def grid(self) -> "Grid":
        """Every head of every layer; a decoder's row t is the moment when token t has been read."""
        from .look.views import Grid

        whole = {n: m for n, m in self.maps.items() if m.shape[2] == len(self.tokens)}
        return Grid(whole, self.tokens, self.tokens, start=None)


def inside(model: Model, text: str) -> Reading:
    """Read a text once and keep what was looked at.

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
    with torch.inference_mode(), record(model.net) as maps:
        model.net.encode(Batch(padded, keep).to(model.device))  # type: ignore[operator]
    if not maps:
        raise UsageError(
            f"this {model.family} has no attention to look at",
            fix="train one with model.attention = true",
        )
    S = len(ids)
    cut = {name: m[:, :, : S if m.shape[2] > 1 else 1, :S] for name, m in maps.items()}
    return Reading(text, tuple(model.tokenizer.tokens(ids)), cut)


def _ids(model: Model, text: str) -> list[int]:
    """The text in the frame its family reads it in."""
    if not text.strip():
        raise DataError("an empty text", fix="give a sentence", code="QKV-032")
    if prompted(model.net):
        return model.ids(text)
    from .data.objectives import Specials
    from .read import framed

    return framed(Specials.of(model.tokenizer), model.tokenizer.encode(text).ids).ids
