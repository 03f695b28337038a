"""An encoder of pictures: pixels -> a state for each patch or cell, and labels from one vector of them."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..parts.block import Stack
from ..parts.heads import Labels
from ..parts.patches import Grid
from ..shapes import Batch, Pixels, States
from .encoder import Problem, each, given
from .interface import Memory, Predictions, Summed, Term, Values

PictureHead = Literal["none", "classes", "distilled"]
Pool = Literal["first", "mean"]


class Tokens(Protocol):
    """What makes tokens of a picture: pixels (B, c, H, W) -> (B, firsts + rows · columns, C)."""

    def __call__(self, pixels: Pixels) -> States: ...

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the tokens that stand for places of the picture."""
        ...


@dataclass(frozen=True, kw_only=True)
class PictureHeadConfig:
    """classes: labels of a picture.  distilled: labels from the first token and from the second, each with a matrix of
    its own; the answer is their mean (Touvron et al. 2021, section 4)."""

    kind: PictureHead = "classes"
    n_labels: int = 0
    problem: Problem = "one"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind != "none" and self.n_labels < 1:
            raise ConfigError(
                f"head = {self.kind!r} with {self.n_labels} labels",
                fix='name them: labels = ["cat", "dog"]',
                code="QKV-013",
            )


class PictureHeads(nn.Module):
    """`classes`, and `distilled` where there are two."""

    classes: Labels
    distilled: Labels

    def __init__(self, config: PictureHeadConfig, d_model: int) -> None:
        super().__init__()
        self.kind, self.problem = config.kind, config.problem
        if config.kind != "none":
            self.classes = Labels(d_model, config.n_labels, dropout=config.dropout)
        if config.kind == "distilled":
            self.distilled = Labels(d_model, config.n_labels, dropout=config.dropout)


class PictureEncoder(nn.Module):
    """head(pool(encoder(embed(pixels)))).

    `firsts` tokens of `embed` stand for no place of the picture: the first is pooled, or with pool = "mean" the others
    are averaged.  `image_size` (height, width) and `channels` say what pictures it is made for."""

    def __init__(
        self,
        embed: Tokens,
        encoder: Stack,
        pooler: nn.Module | None,
        head: PictureHeadConfig,
        *,
        image_size: Grid,
        channels: int,
        firsts: int = 1,
        pool: Pool = "first",
    ) -> None:
        super().__init__()
        self.embed: Any = embed
        self.encoder, self.pooler = encoder, pooler
        self.head = PictureHeads(head, encoder.config.d_model)
        self.image_size, self.channels = image_size, channels
        self.firsts, self.pool = firsts, pool

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the tokens after the first `firsts`, for a picture of so many pixels."""
        made: Grid = self.embed.grid(height, width)
        return made

    def states(self, batch: Batch) -> States:
        """(B, c, H, W) -> (B, firsts + rows · columns, C).  Raises DataError for a batch without pictures."""
        pixels = given(batch.pixels, "picture (pixels)")
        if not pixels.is_floating_point():
            raise DataError(
                f"pixels are {pixels.dtype}", fix="give them as the model's processor makes them"
            )
        x = self.embed(pixels)
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        out: States = self.encoder(x, keep)
        return out

    def encode(self, batch: Batch) -> Memory:
        """The states; the summary is the pooled first token, or the mean of the places."""
        x = self.states(batch)
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        one = x[:, 0] if self.pool == "first" else x[:, self.firsts :].mean(1)
        return Memory(x, keep, one if self.pooler is None else self.pooler(one))

    def logits(self, batch: Batch) -> Tensor:
        """(B, labels).  Raises ConfigError where there is no head."""
        if self.head.kind == "none":
            raise ConfigError(
                "a net with head = 'none' has no labels of pictures",
                fix='ask for its states: encode(batch), or build it with head = "classes"',
                code="QKV-013",
            )
        memory = self.encode(batch)
        made: Tensor = self.head.classes(memory.summary)
        if self.head.kind == "classes":
            return made
        other: Tensor = self.head.distilled(memory.states[:, 1])
        return (made + other) / 2

    def loss_inputs(
        self, batch: Batch, *, forcing: float = 1.0, rng: torch.Generator | None = None
    ) -> Term | tuple[Term, ...]:
        """The label of each picture, or both labels of a mixed one, and what a teacher says of it where the batch has that
        (Touvron et al. 2021, section 4).

        With two heads the first learns the label and the second the teacher's answer, or the label where there is none."""
        if self.head.kind == "none":
            raise ConfigError(
                "a net with head = 'none' has nothing to learn from",
                fix='build it with head = "classes"',
                code="QKV-013",
            )
        memory = self.encode(batch)
        own = self.learned(self.head.classes, memory.summary, batch, "classes")
        if self.head.kind == "classes":
            if batch.taught is None:
                return own
            return own, imitated(self.head.classes(memory.summary), batch.taught, "taught")
        second = memory.states[:, 1]
        if batch.taught is not None:
            return own, imitated(self.head.distilled(second), batch.taught, "distilled")
        return own, self.learned(self.head.distilled, second, batch, "distilled")

    def learned(self, last: Labels, x: Tensor, batch: Batch, name: str) -> Term:
        """The term of the batch's labels, read from x (B, C)."""
        if batch.mixed is not None:
            return imitated(last(x), batch.mixed, name)
        return labelled(last, x, given(batch.label, "label"), self.head.problem, name)


def placed_anew(net: nn.Module, start: nn.Module) -> dict[str, Tensor]:
    """The positions of `start` on the grid of `net`, where that is another: bicubic between the learned ones
    (Dosovitskiy et al. 2021, section 3.2)."""
    if not isinstance(net, PictureEncoder) or not isinstance(start, PictureEncoder):
        return {}
    grid, places = net.grid(*net.image_size), start.embed.places
    return {"embed.places.position": places.positions(grid).detach()}


def imitated(logits: Tensor, taught: Tensor, name: str) -> Summed:
    """Σ_rows -Σ_k p_k log softmax(z)_k, (B, K) each: p a teacher's answer (Hinton et al. 2015, section 2, temperature 1), or
    the labels of mixed pictures."""
    with torch.autocast(logits.device.type, enabled=False):
        z = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return Summed(-(taught.to(z.dtype) * z.log_softmax(-1)).sum(), len, name)


def labelled(last: Labels, x: Tensor, label: Tensor, problem: Problem, name: str) -> Term:
    """The term of labels read from x (B, C): one class of each row, any of them, or numbers to be near."""
    if problem == "value":
        return Values(last(x).flatten(), label.flatten(), name=name)
    if problem == "many":
        return each(last(x), label)
    return Predictions(last.change(x), last.out.weight, last.out.bias, label, per="row", name=name)
