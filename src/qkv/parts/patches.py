"""A picture read as tokens: cut into patches, each a vector, with learned tokens before them and positions added
(Dosovitskiy et al. 2021, equation 1; the second token: Touvron et al. 2021, section 4)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError, DataError
from ..shapes import Pixels, States
from .dropout import Dropout
from .resnet import check_channels

Size = int | tuple[int, ...]  # one number for a square, or height and width
Grid = tuple[int, int]  # rows and columns


def both(size: Size, name: str = "size") -> Grid:
    """28 -> (28, 28); (28, 14) as it is.  Raises ConfigError for anything else, and for sizes below 1."""
    made = (size, size) if isinstance(size, int) else tuple(size)
    if len(made) != 2 or min(made) < 1:
        raise ConfigError(
            f"{name} = {size!r}", fix=f"one number from 1, or height and width: {name} = [28, 14]"
        )
    return made[0], made[1]


@dataclass(frozen=True, kw_only=True)
class PlaceConfig:
    """A grid of places, each a vector of d_model, and `firsts` learned tokens (0, 1, 2) before them."""

    d_model: int
    grid: Grid
    firsts: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.d_model < 1 or not 0 <= self.firsts <= 2 or min(self.grid) < 1:
            raise ConfigError(
                f"d_model {self.d_model}, firsts {self.firsts}, grid {self.grid}",
                fix="d_model from 1, firsts 0, 1 or 2, a grid of at least one place",
            )


def plane(grid: Grid, C: int) -> Tensor:
    """[sin(r w_i), cos(r w_i), sin(c w_i), cos(c w_i)], w_i = 10,000^(-4i / C), of row r and column c: (rows · columns, C).

    What is left of C beyond fours is 0 (Beyer et al. 2022, section 2)."""
    n = C // 4
    speed = 10_000.0 ** (-torch.arange(n) / max(n, 1))
    rows, columns = (torch.arange(size)[:, None] * speed for size in grid)
    one, other = (torch.cat([x.sin(), x.cos()], 1) for x in (rows, columns))
    whole = torch.cat([one[:, None].expand(-1, grid[1], -1), other.expand(grid[0], -1, -1)], 2)
    return F.pad(whole.flatten(0, 1), (0, C - 4 * n))


class Places(nn.Module):
    """[first; second; x_1; x_2; …] + position: (B, rows · columns, C) -> (B, firsts + rows · columns, C).

    Positions of the grid are learned from 2-D sines on, so that neighbours are alike from the first step.
    On another grid positions are interpolated between the learned ones (bicubic, as the published nets do)."""

    def __init__(self, config: PlaceConfig) -> None:
        super().__init__()
        C, n = config.d_model, config.firsts
        self.first = nn.Parameter(torch.randn(1, 1, C) * 0.02) if n else None
        self.second = nn.Parameter(torch.randn(1, 1, C) * 0.02) if n > 1 else None
        begun = [torch.randn(n, C) * 0.02, plane(config.grid, C)]
        self.position = nn.Parameter(torch.cat(begun)[None])
        self.config, self.drop = config, Dropout(config.dropout)

    def positions(self, grid: Grid) -> Tensor:
        """(1, firsts + rows · columns, C) of a grid."""
        if grid == self.config.grid:
            return self.position
        n, (rows, columns), C = self.config.firsts, self.config.grid, self.config.d_model
        table = self.position[:, n:].reshape(1, rows, columns, C).permute(0, 3, 1, 2)
        made = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        return torch.cat([self.position[:, :n], made.permute(0, 2, 3, 1).flatten(1, 2)], 1)

    def forward(self, x: States, grid: Grid) -> States:
        before = [t.expand(len(x), -1, -1) for t in (self.first, self.second) if t is not None]
        x = torch.cat([t.to(x.dtype) for t in before] + [x], 1) if before else x
        dropped: Tensor = self.drop(x + self.positions(grid))
        return dropped


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Pixels right of and below the last whole patch are not read, as in the published nets."""

    d_model: int
    image_size: Size = 224  # of the pictures that the positions are made for
    patch_size: Size = 16
    channels: int = 3
    firsts: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ConfigError(f"channels {self.channels}", fix="1 for grey, 3 for colours")
        if min(self.grid) < 1:
            raise ConfigError(
                f"image_size {self.image_size} is smaller than patch_size {self.patch_size}",
                fix="make the patches smaller, e.g. a seventh of the picture",
                code="QKV-013",
            )
        self.placed()

    @property
    def patch(self) -> Grid:
        return both(self.patch_size, "patch_size")

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches in a picture of `image_size`."""
        return cells(both(self.image_size, "image_size"), self.patch)

    def placed(self) -> PlaceConfig:
        return PlaceConfig(
            d_model=self.d_model, grid=self.grid, firsts=self.firsts, dropout=self.dropout
        )


def cells(size: Grid, patch: Grid) -> Grid:
    """Whole patches in a picture."""
    return size[0] // patch[0], size[1] // patch[1]


def cut(pixels: Pixels, patch: Grid) -> Tensor:
    """(B, c, H, W) -> (B, patches, c · h · w), row by row; what does not fill a patch is left out."""
    (B, c, H, W), (h, w) = pixels.shape, patch
    rows, columns = cells((H, W), patch)
    x = pixels[..., : rows * h, : columns * w].reshape(B, c, rows, h, columns, w)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(B, rows * columns, c * h * w)


class Patches(nn.Module):
    """places(E p_1, E p_2, …): (B, c, H, W) -> (B, firsts + patches, C).

    E is a convolution whose step is its own size, so each patch is one product.
    Raises DataError for pictures of other channels, or smaller than a patch."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.patch = nn.Conv2d(config.channels, config.d_model, config.patch, stride=config.patch)
        self.places, self.config = Places(config.placed()), config

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of patches.  Raises DataError QKV-033 where there is none."""
        made = cells((height, width), self.config.patch)
        if min(made) < 1:
            raise DataError(
                f"a picture of {height} x {width} pixels, a patch has {' x '.join(map(str, self.config.patch))}",
                fix="make the pictures larger",
            )
        return made

    def forward(self, pixels: Pixels) -> States:
        check_channels(pixels, self.config.channels)
        grid, weight = self.grid(pixels.shape[-2], pixels.shape[-1]), self.patch.weight
        x = cut(pixels.to(weight.dtype), self.config.patch)
        y: Tensor = self.places(F.linear(x, weight.flatten(1), self.patch.bias), grid)
        return y
