"""A detector: pixels -> backbone -> encoder of cells -> decoder of object queries -> boxes (Carion et al. 2020, figure 2)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError, DataError
from ..parts.attention import Attention
from ..parts.block import Activation, Stack, StackConfig
from ..parts.dropout import Dropout
from ..parts.patterns import Allowed, Full
from ..parts.resnet import ResNet, ResNetConfig, Stem
from ..shapes import Batch, Keep, Pixels, States
from .interface import BoxWeights, Detected, Memory

Trained = Literal["all", "upper", "none"]
ROWS = 50  # learned positions of each axis


@dataclass(frozen=True, kw_only=True)
class DetrConfig:
    labels: tuple[str, ...] = ()
    head: Literal["boxes", "none"] = "boxes"
    # the backbone
    layout: Literal["resnet", "timm"] = "resnet"  # how a published file names its tensors
    channels: int = 3
    stem: Stem = "7x7"
    d_stem: int = 64
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    backbone_activation: Activation = "relu"
    halve_first: bool = False
    halve_early: bool = False
    out: int = 4  # the stage whose cells are read
    frozen: bool = True  # its norms keep what they were loaded with; false: they learn too
    trained: Trained = "all"  # upper: all but the stem and the first stage, as in the paper
    # encoder and decoder
    d_model: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_heads: int = 8
    decoder_heads: int = 8
    encoder_ff: int = 2048
    decoder_ff: int = 2048
    queries: int = 100  # the most objects that can be found in a picture
    positions: Literal["sine", "learned"] = "sine"
    activation: Activation = "relu"
    dropout: float = 0.1
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    # QUIRK (transformers, auxiliary_loss = true): the last norm follows each layer, and what is normed goes on;
    # test_auxiliary_losses_and_their_quirk
    renormed: bool = False
    auxiliary: bool = True  # a loss after every layer of the decoder, not the last alone
    # matching, and the loss (section 3.1; appendix A.2)
    match_class: float = 1.0
    match_box: float = 5.0
    match_giou: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    nothing_weight: float = 0.1  # of queries that find nothing, in the loss of classes

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ConfigError(f"queries must be at least 1 (got {self.queries})", fix="queries=10")
        if self.positions == "sine" and self.d_model % 4:
            raise ConfigError(
                f"d_model {self.d_model}: sines and cosines of two axes",
                fix="take a multiple of 4",
                code="QKV-013",
            )
        if not any((self.match_class, self.match_box, self.match_giou)):
            raise ConfigError(
                "match_class, match_box and match_giou are all 0: nothing tells which query an object is",
                fix="match_class=1 match_box=5 match_giou=2",
            )
        self.backbone()
        self.stack(decoder=False), self.stack(decoder=True)

    def backbone(self) -> ResNetConfig:
        return ResNetConfig(
            channels=self.channels,
            stem=self.stem,
            d_stem=self.d_stem,
            widths=self.widths,
            depths=self.depths,
            bottleneck=self.bottleneck,
            activation=self.backbone_activation,
            halve_first=self.halve_first,
            halve_early=self.halve_early,
            frozen=self.frozen,
            out=(self.out,),
        )

    def stack(self, *, decoder: bool) -> StackConfig:
        return StackConfig(
            n_layers=self.decoder_layers if decoder else self.encoder_layers,
            d_model=self.d_model,
            n_heads=self.decoder_heads if decoder else self.encoder_heads,
            d_ff=self.decoder_ff if decoder else self.encoder_ff,
            d_memory=self.d_model if decoder else None,
            final_norm=decoder,
            activation=self.activation,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
            ff_dropout=self.ff_dropout,
        )

    @property
    def weights(self) -> BoxWeights:
        return BoxWeights(
            match_class=self.match_class,
            match_box=self.match_box,
            match_giou=self.match_giou,
            box=self.box_weight,
            giou=self.giou_weight,
            nothing=self.nothing_weight,
        )


def sines(keep: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Positions of cells on both axes (Carion et al. 2020, appendix A.3): keep (B, H, W) -> (B, H·W, width).

    The real cells of a picture count to 2π, whatever its size; half of the channels are y's, half x's, each
    sin(p / 10000^(2i/n)), cos(the same) in turn."""
    n = width // 2
    speed = 10_000 ** (
        2 * torch.div(torch.arange(n, device=keep.device), 2, rounding_mode="floor").to(dtype) / n
    )

    def axis(dim: int) -> Tensor:
        at = keep.to(dtype).cumsum(dim)
        at = at / (at.narrow(dim, at.shape[dim] - 1, 1) + 1e-6) * 2 * math.pi
        angle = at[..., None] / speed  # (B, H, W, n)
        return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)

    return torch.cat([axis(1), axis(2)], -1).flatten(1, 2)


class Learned(nn.Module):
    """A vector for each row and each column of cells, up to 50 of each: half of the channels are x's, half y's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.row, self.column = nn.Embedding(ROWS, width // 2), nn.Embedding(ROWS, width // 2)
        nn.init.uniform_(self.row.weight)
        nn.init.uniform_(self.column.weight)

    def forward(self, height: int, width: int) -> Tensor:
        """(1, H·W, C).  Raises DataError QKV-037 for a picture of more rows or columns."""
        if max(height, width) > ROWS:
            raise DataError(
                f"a picture of {height} x {width} cells, the net has learned {ROWS} positions an axis",
                fix="make it smaller",
                code="QKV-037",
            )
        y = self.row.weight[:height, None].expand(-1, width, -1)
        x = self.column.weight[None, :width].expand(height, -1, -1)
        return torch.cat([x, y], -1).flatten(0, 1)[None]


class DetectionHead(nn.Module):
    """Of each query: a class, the last one meaning nothing, and a box as parts of the picture."""

    def __init__(self, width: int, n_labels: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, n_labels + 1)
        self.boxes = nn.ModuleList([nn.Linear(width, n) for n in (width, width, 4)])

    def forward(self, states: States) -> tuple[Tensor, Tensor]:
        """(…, N, C) -> logits (…, N, K + 1) and boxes (…, N, 4): centre x, y, width, height in 0 … 1.

        In the weights' own type under autocast, too: the eight bits of bfloat16 would be steps of 1/256 of a picture."""
        with torch.autocast(states.device.type, enabled=False):
            states = states.to(self.classes.weight.dtype)
            x = F.relu(self.boxes[1](F.relu(self.boxes[0](states))))
            return self.classes(states), self.boxes[2](x).sigmoid()


@dataclass(frozen=True)
class Cells:
    """The encoded cells of pictures, and where they stand."""

    states: States  # (B, H·W, C)
    keep: Keep  # (B, H·W)
    place: Tensor  # (1 or B, H·W, C)
    size: tuple[int, int]  # H, W


class Detector(nn.Module):
    """pixels -> backbone -> encoder -> decoder of object queries -> a class and a box of each."""

    image_size = None  # any

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        C = config.d_model
        self.backbone = ResNet(config.backbone())
        self.project = nn.Conv2d(config.backbone().out_widths[-1], C, 1)
        self.place = Learned(C) if config.positions == "learned" else None
        self.drop = Dropout(config.dropout)
        self.encoder = Stack(config.stack(decoder=False))
        self.queries = nn.Embedding(config.queries, C)
        self.decoder = Stack(config.stack(decoder=True))
        if config.head == "boxes":
            self.head = DetectionHead(C, len(config.labels))
        self.config, self.channels = config, config.channels

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The backbone's cells (B, C, H, W), and which are real (B, H, W): those whose upper left pixel is."""
        pixels = given(batch.pixels).to(self.project.weight.dtype)
        (found,) = self.backbone(pixels)
        found = self.project(found)
        B, _, H, W = found.shape
        keep = batch.pixel_keep
        if keep is None:
            return found, torch.ones(B, H, W, dtype=torch.bool, device=found.device)
        near = F.interpolate(keep[None].float(), size=(H, W))[0]  # (B, height, width) -> (B, H, W)
        return found, near.bool()

    def cells(self, batch: Batch) -> Cells:
        """The encoder's states of the cells."""
        found, real = self.features(batch)
        size, keep = (found.shape[2], found.shape[3]), real.flatten(1)
        exact = torch.promote_types(self.project.weight.dtype, torch.float32)
        place = sines(real, self.config.d_model, exact) if self.place is None else self.place(*size)
        place = place.to(found.dtype)
        x = self.drop(found.flatten(2).transpose(1, 2))  # (B, C, H, W) -> (B, H·W, C)
        return Cells(self.encoder(x, keep, place=place), keep, place, size)

    def encode(self, batch: Batch) -> Memory:
        """The states of the cells; the summary is their mean."""
        cells = self.cells(batch)
        memory = Memory(cells.states, cells.keep, cells.states[:, 0])
        return Memory(cells.states, cells.keep, memory.mean)

    def layers(self, cells: Cells) -> list[States]:
        """The queries' states (B, N, C) after each layer of the decoder, normed; the last are the answer's."""
        B = cells.states.shape[0]
        asked = self.queries.weight[None].expand(B, -1, -1).to(cells.states.dtype)
        own = Allowed.of(Full(), torch.ones_like(asked[..., 0], dtype=torch.bool))
        seen = Allowed.of(Full(), cells.keep, asked.shape[1])
        x, made = torch.zeros_like(asked), []
        sights = self.decoder.sights(own, own.positions, seen, x, asked)
        for block, sight in zip(self.decoder.each, sights, strict=True):
            looked: Attention = block.cross
            x, _ = block(x, sight, cross=looked.keys(cells.states, cells.place))
            made.append(self.decoder.norm(x))
            x = made[-1] if self.config.renormed else x
        return [*made[:-1], self.decoder.norm(x)]

    def states(self, batch: Batch) -> States:
        """What the queries have found, (B, N, C)."""
        return self.layers(self.cells(batch))[-1]

    def found(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of each query the logits (B, N, K + 1) and the box (B, N, 4).  Raises ConfigError where there is no head."""
        return self.headed()(self.states(batch))  # type: ignore[no-any-return]

    def logits(self, batch: Batch) -> Tensor:
        """(B, N, K + 1), the last class: nothing."""
        return self.found(batch)[0]

    def headed(self) -> nn.Module:
        if self.config.head == "none":
            raise ConfigError(
                "this model has no head: its checkpoint is a bare one",
                fix="load the checkpoint with its head, or ask for its states",
                code="QKV-013",
            )
        return self.head

    def loss_inputs(
        self, batch: Batch, *, forcing: float = 1.0, rng: torch.Generator | None = None
    ) -> Detected:
        """What is said after each layer (the last alone where there are no auxiliary losses), and what is there."""
        if batch.boxes is None or batch.label is None:
            raise DataError(
                "a loss needs a batch with boxes and labels", fix="use objective detect"
            )
        made = self.layers(self.cells(batch))
        if not self.config.auxiliary or not self.training and not self.config.renormed:
            made = made[-1:]
        logits, boxes = self.headed()(torch.stack(made))  # (L, B, N, …)
        return Detected(logits, boxes, batch.label, batch.boxes, self.config.weights)


def given(pixels: Pixels | None) -> Pixels:
    if pixels is None:
        raise DataError("a batch without pixels", fix="this family reads pictures")
    return pixels
