"""The alphabet of axes and the named tensor types.

B batch · T query or target length · S key or source length · H heads · D head width · C model width ·
F feed-forward width · V vocabulary · L layers · N real (unpadded) tokens · R rows of a decoding step
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Self

import torch
from torch import Tensor

Ids = Annotated[Tensor, "B T int64"]
Keep = Annotated[Tensor, "B S bool, True = real token"]
Mask = Annotated[Tensor, "B 1 T S bool, True = may look"]
States = Annotated[Tensor, "B T C"]
Heads = Annotated[Tensor, "B H T D"]
Bias = Annotated[Tensor, "1 H T S added to scores"]
Maps = Annotated[Tensor, "B H T S rows sum to 1"]
Logits = Annotated[Tensor, "B T V"]
Pixels = Annotated[Tensor, "B channels height width"]
Boxes = Annotated[Tensor, "B N 4: centre x, centre y, width, height in 0 … 1"]


@dataclass(frozen=True)
class Batch:
    """What a step of training or decoding sees: right-padded ids and who is real.

    A source (B, S) with its keep, and where there is one a target:
    - of a sequence-to-sequence net, (B, T), ending in <eos> and without a start token: the net shifts it right itself,
      because families start differently (<bos>, <pad>);
    - of an encoder or decoder alone, (B, S), aligned with the source: the id to be predicted at each position, and
      target_keep says where that counts (a masked token, the next token of an answer, a word's first piece).
    `index` says which examples of the corpus these rows are.

    A batch of pictures holds `pixels`, and a source of no tokens, (B, 0).
    """

    source: Tensor
    keep: Tensor
    target: Tensor | None = None
    target_keep: Tensor | None = None
    index: Tensor | None = None
    segment: Tensor | None = None  # (B, S) int64: which of two texts a token belongs to
    group: Tensor | None = None  # (B, S) int64: packed documents; tokens see their own group only
    # one answer per row: class (B), value (B) float, span (B, 2), or the class of each box (B, N), -1 where there is none
    label: Tensor | None = None
    marked: Tensor | None = None  # (B, S) bool: tokens that see, and are seen by, all of their row
    pixels: Tensor | None = (
        None  # (B, channels, height, width) float, as the model's processor makes them
    )
    pixel_keep: Tensor | None = (
        None  # (B, height, width) bool, False where a smaller picture was padded
    )
    boxes: Tensor | None = (
        None  # (B, N, 4) float: centre x and y, width, height, as parts of the picture
    )
    taught: Tensor | None = None  # (B, K) float: the probability of each class, by a teacher
    mixed: Tensor | None = None  # (B, K) float: the same by the labels, where pictures are mixed

    def __len__(self) -> int:
        return self.source.shape[0]

    @property
    def target_tokens(self) -> int:
        return 0 if self.target_keep is None else int(self.target_keep.sum())

    def to(self, *args: Any, **kwargs: Any) -> Self:
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            n: None if t is None else t.to(*args, **kwargs) for n, t in held.items()
        }
        return replace(self, **moved)


def pad(rows: list[list[int]], pad_id: int, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Right-pad rows of ids to one length, rounded up to a multiple.  Returns ids (B, S) and keep (B, S)."""
    longest = max((len(r) for r in rows), default=1) or 1
    S = -(-longest // multiple) * multiple
    ids = torch.full((len(rows), S), pad_id, dtype=torch.long)
    lengths = torch.tensor([len(r) for r in rows])
    keep = torch.arange(S) < lengths[:, None]
    ids[keep] = torch.tensor([i for r in rows for i in r], dtype=torch.long)
    return ids, keep
