"""Residual convolutional networks (He et al. 2016): a picture -> maps of features, each stage half as fine.

stem, then stages of blocks x + f(x):   f = 3x3, 3x3 (basic)   or   1x1, 3x3, 1x1 at a quarter of the width (bottleneck)"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError, DataError
from ..shapes import Pixels
from .block import ACTIVATIONS, Activation

Stem = Literal["7x7", "3x3"]
NARROWER = 4  # a bottleneck's inner width, He et al. 2016, figure 5
# how published backbones name their tensors -> ours; `num_batches_tracked` is a count that nothing reads
NAMES = {
    "embedder.embedder.convolution.weight": "stem.conv.weight",
    "embedder.embedder.normalization.{p}": "stem.norm.{p}",
    "encoder.stages.{s}.layers.{b}.shortcut.convolution.weight": "stages.{s}.{b}.short.conv.weight",
    "encoder.stages.{s}.layers.{b}.shortcut.normalization.{p}": "stages.{s}.{b}.short.norm.{p}",
    "encoder.stages.{s}.layers.{b}.layer.{n}.convolution.weight": "stages.{s}.{b}.convs.{n}.conv.weight",
    "encoder.stages.{s}.layers.{b}.layer.{n}.normalization.{p}": "stages.{s}.{b}.convs.{n}.norm.{p}",
}
UNREAD = {"*.num_batches_tracked": "a count of steps that nothing reads"}


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Defaults are ResNet-50.  `out` names the maps that are given back: 0 is the stem's, 1 … the stages'."""

    channels: int = 3
    stem: Stem = "7x7"  # 7x7 at every second pixel, then a pool by two; 3x3 at every pixel for small pictures
    d_stem: int = 64
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    activation: Activation = "relu"  # of the stem and at a block's end; within a block it is relu
    halve_first: bool = False  # the first stage, too, has half of the resolution before it
    halve_early: bool = False  # a bottleneck halves in its first 1x1, not in its 3x3
    norm_eps: float = 1e-5
    frozen: bool = False  # norms keep the statistics and factors they were loaded with
    out: tuple[int, ...] = (4,)

    def __post_init__(self) -> None:
        least = NARROWER if self.bottleneck else 1
        if len(self.widths) != len(self.depths) or not self.depths or min(self.depths) < 1:
            raise ConfigError(
                f"widths {self.widths} and depths {self.depths}: one of each for every stage, depths from 1",
                fix="widths = [64, 128], depths = [2, 2]",
                code="QKV-013",
            )
        if min(self.channels, self.d_stem) < 1 or min(self.widths) < least:
            raise ConfigError(
                f"channels {self.channels}, d_stem {self.d_stem}, widths {self.widths}",
                fix=f"channels and d_stem from 1, widths from {least}",
            )
        if not self.out or any(not 0 <= n <= len(self.depths) for n in self.out):
            raise ConfigError(
                f"out = {self.out}: maps of {len(self.depths)} stages",
                fix=f"numbers from 0 (the stem) to {len(self.depths)}",
            )

    @property
    def out_widths(self) -> tuple[int, ...]:
        """Channels of the maps that are given back."""
        return tuple((self.d_stem, *self.widths)[n] for n in self.kept)

    @property
    def kept(self) -> tuple[int, ...]:
        """`out` from fine to coarse, each once."""
        return tuple(sorted(set(self.out)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between the cells of neighbours on each kept map."""
        first = 4 if self.stem == "7x7" else 1
        made = [first, first * 2 if self.halve_first else first]
        for _ in self.depths[1:]:
            made.append(made[-1] * 2)
        return tuple(made[n] for n in self.kept)


class ChannelNorm(nn.Module):
    """(x - mean) / √(var + ε) · g + b for each channel (Ioffe & Szegedy 2015): (B, C, H, W) -> the same.

    Mean and variance are those of the batch while training, and running ones (a tenth of each step's, where that is
    finite) elsewhere; frozen: always the running ones, and g, b are not learned."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5, *, frozen: bool = False) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.ones(width)) if frozen else nn.Parameter(torch.ones(width))
        self.bias = nn.Buffer(torch.zeros(width)) if frozen else nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.eps, self.frozen = eps, frozen

    def forward(self, x: Tensor) -> Tensor:
        if self.frozen or not self.training:
            return self.normed(x, self.running_mean, self.running_var)
        mean, var = self.running_mean.clone(), self.running_var.clone()
        y = self.normed(x, mean, var)
        with torch.no_grad():  # one bad batch must not spoil all that follow (law 10)
            good = mean.isfinite().all() & var.isfinite().all()
            self.running_mean.copy_(torch.where(good, mean, self.running_mean))
            self.running_var.copy_(torch.where(good, var, self.running_var))
        return y

    def normed(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        training = self.training and not self.frozen
        return F.batch_norm(x, mean, var, self.weight, self.bias, training, 0.1, self.eps)


class ConvNorm(nn.Module):
    """act(norm(conv x)): (B, C_in, H, W) -> (B, C_out, H/stride, W/stride), the size rounded up."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        size: int = 3,
        stride: int = 1,
        *,
        act: Activation | None = "relu",
        eps: float = 1e-5,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        # QUIRK (oneDNN, channels last): the backward of a 1x1 with steps writes past its memory (docs/diary.md): cells
        # are chosen before the product instead, and the usual memory format is kept
        self.chosen = stride if size == 1 else 1
        step = stride if size > 1 else 1
        self.conv = nn.Conv2d(d_in, d_out, size, step, padding=size // 2, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm = ChannelNorm(d_out, eps, frozen=frozen)
        self.act: Callable[[Tensor], Tensor] | None = None if act is None else ACTIVATIONS[act]

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.chosen == 1 else x[..., :: self.chosen, :: self.chosen]
        y: Tensor = self.norm(self.conv(x))
        return y if self.act is None else self.act(y)


class Residual(nn.Module):
    """act(short(x) + f(x)), He et al. 2016, equation 2; `short` is a 1x1 where the shape changes."""

    def __init__(self, d_in: int, d_out: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()

        def layer(a: int, b: int, size: int, by: int = 1, last: bool = False) -> ConvNorm:
            act: Activation | None = None if last else "relu"  # QUIRK: whatever `activation` is
            return ConvNorm(a, b, size, by, act=act, eps=config.norm_eps, frozen=config.frozen)

        if config.bottleneck:
            inner = d_out // NARROWER
            early, late = (stride, 1) if config.halve_early else (1, stride)
            convs = [
                layer(d_in, inner, 1, early),
                layer(inner, inner, 3, late),
                layer(inner, d_out, 1, last=True),
            ]
        else:
            convs = [layer(d_in, d_out, 3, stride), layer(d_out, d_out, 3, last=True)]
        self.convs = nn.ModuleList(convs)
        changed = d_in != d_out or stride != 1
        self.short = layer(d_in, d_out, 1, stride, last=True) if changed else None
        self.act = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv(y)
        return self.act(y + (x if self.short is None else self.short(x)))


class ResNet(nn.Module):
    """pixels (B, channels, H, W) -> the maps asked for, fine to coarse: [(B, C_i, H_i, W_i), …].

    Stage i has one cell for every `config.strides[i]` pixels each way, rounded up.
    Raises DataError QKV-033 for pictures of another number of channels."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        size, by = (7, 2) if config.stem == "7x7" else (3, 1)
        self.stem = ConvNorm(
            config.channels,
            config.d_stem,
            size,
            by,
            act=config.activation,
            eps=config.norm_eps,
            frozen=config.frozen,
        )
        widths = (config.d_stem, *config.widths)
        self.stages = nn.ModuleList()
        for s, depth in enumerate(config.depths):
            stride = 2 if s or config.halve_first else 1
            first = Residual(widths[s], widths[s + 1], stride, config)
            more = [Residual(widths[s + 1], widths[s + 1], 1, config) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(first, *more))
        self.config = config

    def forward(self, pixels: Pixels) -> list[Tensor]:
        check_channels(pixels, self.config.channels)
        x = self.stem(pixels)
        x = F.max_pool2d(x, 3, 2, padding=1) if self.config.stem == "7x7" else x
        maps = [x]
        for stage in self.stages[: max(self.config.kept)]:
            maps.append(stage(maps[-1]))
        return [maps[n] for n in self.config.kept]


def check_channels(pixels: Pixels, channels: int) -> None:
    """Raises DataError QKV-033 unless pixels are (B, channels, H, W)."""
    if pixels.dim() != 4 or pixels.shape[1] != channels:
        raise DataError(
            f"pixels are {tuple(pixels.shape)}, the net reads (pictures, {channels}, height, width)",
            fix=f"give pictures of {channels} channels, as the model's processor makes them",
        )
