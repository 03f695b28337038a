"""A convolutional net whose map of features is read as tokens by a Transformer: convolutions see what is near, attention
what is far (Dosovitskiy et al. 2021, section 3.1, "hybrid architecture"; a stem of 3x3s: Xiao et al. 2021)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..parts.block import Activation, Stack, StackConfig
from ..parts.patches import Grid, PlaceConfig, Places, Size, both
from ..parts.resnet import ConvNorm, ResNet, ResNetConfig, Stem, check_channels
from ..shapes import Pixels, States
from .encoder import Problem
from .pictures import PictureEncoder, PictureHead, PictureHeadConfig, Pool
from .vit import begin

GREY = dict(image_size=28, channels=1)
SIZES: dict[str, dict[str, Any]] = {
    # for grey pictures of 28 x 28: 49 tokens; `mini` has the parameters of ViT's
    "tiny": GREY | dict(widths=(8, 16), strides=(2, 2), n_layers=1, d_model=32, n_heads=2, d_ff=64),
    "mini": GREY | dict(widths=(32, 48, 48, 64), strides=(1, 2, 1, 2), n_layers=4, d_model=64, n_heads=4, d_ff=128),
    # for coloured ones of 32 x 32: 64 tokens
    "cifar": dict(
        image_size=32, cnn="resnet", stem="3x3", d_stem=64, widths=(64, 128, 256), depths=(1, 1, 1), n_layers=6,
        d_model=256, n_heads=8, d_ff=768,
    ),
    # ResNet-50's third stage and ViT-B: 14 x 14 tokens of a picture of 224 (Dosovitskiy et al. 2021, appendix B.1)
    "r50-b16": dict(
        cnn="resnet", widths=(256, 512, 1024), depths=(3, 4, 9), bottleneck=True, n_layers=12, d_model=768, n_heads=12,
        d_ff=3072,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    head: PictureHead = "classes"
    labels: tuple[str, ...] = ()  # names of the classes, by id
    problem: Problem = "one"
    image_size: Size = 224  # that the positions are learned for: one number, or height and width
    channels: int = 3
    cnn: Literal["convs", "resnet"] = "convs"
    widths: tuple[int, ...] = (64, 128, 256, 512)  # of the 3x3s, or of the stages
    strides: tuple[int, ...] = ()  # of the 3x3s; none: 2 each
    depths: tuple[int, ...] = ()  # blocks of each stage of a ResNet; none: 2 each
    bottleneck: bool = False
    stem: Stem = "7x7"
    d_stem: int = 64
    d_model: int = 512
    n_layers: int = 6
    n_heads: int = 8
    d_ff: int | None = None  # None: 4 x d_model
    activation: Activation = "gelu"
    pattern: str | None = None  # which tokens see which, row by row: "window(7) | global(1)"
    norm_eps: float = 1e-6
    pool: Pool = "mean"  # labels are read from the mean of the cells, or from a learned first token
    dropout: float = 0.0
    attn_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("strides", "depths"):
            given: tuple[int, ...] = getattr(self, name)
            if given and (len(given) != len(self.widths) or min(given) < 1):
                raise ConfigError(
                    f"{name} = {given} for widths = {self.widths}",
                    fix=f"one number from 1 for each width, or leave {name} out",
                    code="QKV-013",
                )
        if not self.widths or min(*self.widths, self.channels) < 1:
            raise ConfigError(
                f"widths = {self.widths}, channels = {self.channels}", fix="widths = [32, 64]"
            )
        if self.head == "distilled":
            raise ConfigError(
                "a hybrid has no head 'distilled'", fix="head = 'classes'", code="QKV-013"
            )
        self.placed()
        self.stack()
        self.headed()
        if self.cnn == "resnet":
            self.residual()

    @property
    def firsts(self) -> int:
        return 1 if self.pool == "first" else 0

    @property
    def steps(self) -> tuple[int, ...]:
        """Of each 3x3."""
        return self.strides or (2,) * len(self.widths)

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the map of features: sizes are rounded up at every step."""
        steps = self.steps
        if self.cnn == "resnet":
            steps = (*((2, 2) if self.stem == "7x7" else ()), *(2 for _ in self.widths[1:]))
        for step in steps:
            height, width = -(-height // step), -(-width // step)
        return height, width

    def placed(self) -> PlaceConfig:
        return PlaceConfig(
            d_model=self.d_model,
            grid=self.grid(*both(self.image_size, "image_size")),
            firsts=self.firsts,
            dropout=self.dropout,
        )

    def residual(self) -> ResNetConfig:
        return ResNetConfig(
            channels=self.channels,
            stem=self.stem,
            d_stem=self.d_stem,
            widths=self.widths,
            depths=self.depths or (2,) * len(self.widths),
            bottleneck=self.bottleneck,
            out=(len(self.widths),),
        )

    def stack(self) -> StackConfig:
        return StackConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            norm_eps=self.norm_eps,
            norm_first=True,
            final_norm=True,
            activation=self.activation,
            pattern=self.pattern,
            dropout=self.dropout,
            attn_dropout=self.attn_dropout,
        )

    def headed(self) -> PictureHeadConfig:
        return PictureHeadConfig(kind=self.head, n_labels=len(self.labels), problem=self.problem)


class Cells(nn.Module):
    """places(W f_1, W f_2, …) for the cells f of the CNN's map: (B, c, H, W) -> (B, firsts + rows · columns, C).

    W is left out where the map has d_model channels already.  Raises DataError for pictures of other channels."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        if config.cnn == "resnet":
            self.cnn: nn.Module = ResNet(config.residual())
        else:
            before = (config.channels, *config.widths[:-1])
            made = zip(before, config.widths, config.steps, strict=True)
            self.cnn = nn.Sequential(*(ConvNorm(a, b, 3, step) for a, b, step in made))
        last = config.widths[-1]
        self.project = None if last == config.d_model else nn.Linear(last, config.d_model)
        self.places, self.config = Places(config.placed()), config

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the map.  Raises DataError QKV-033 for a picture without pixels."""
        made = self.config.grid(height, width)
        if min(made) < 1:
            raise DataError(f"a picture of {height} x {width} pixels", fix="leave it out")
        return made

    def forward(self, pixels: Pixels) -> States:
        check_channels(pixels, self.config.channels)
        grid = self.grid(pixels.shape[-2], pixels.shape[-1])
        pixels = pixels.to(next(self.cnn.parameters()).dtype)
        x = self.cnn(pixels)
        x = x if isinstance(x, Tensor) else x[0]
        x = x.flatten(2).transpose(1, 2)  # (B, C, rows, columns) -> (B, rows · columns, C)
        x = x if self.project is None else self.project(x)
        y: Tensor = self.places(x, grid)
        return y


def build(config: HybridConfig) -> PictureEncoder:
    net = PictureEncoder(
        Cells(config),
        Stack(config.stack()),
        None,
        config.headed(),
        image_size=both(config.image_size),
        channels=config.channels,
        firsts=config.firsts,
        pool=config.pool,
    )
    begin(net)
    return net
