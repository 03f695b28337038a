"""[objective] of pictures."""

from dataclasses import dataclass

from ...errors import ConfigError
from .augment import Augment


@dataclass(frozen=True, kw_only=True)
class ImageClassifyConfig(Augment):
    """`classes` in the order of their numbers; empty: the names of the folders, sorted, numbers by size.

    Of an idx file, whose labels are numbers, `classes` are the names of 0, 1, …"""

    classes: tuple[str, ...] = ()
    teacher: str = ""  # a classifier of these classes, whose answers are learned beside the labels (Touvron et al. 2021)
    no_augment: float = (
        0.0  # the share of the steps, the last ones, that see pictures as they are (Ge et al. 2021)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.no_augment <= 1:
            raise ConfigError(
                f"no_augment must be in [0, 1] (got {self.no_augment})", fix="try no_augment = 0.2"
            )
