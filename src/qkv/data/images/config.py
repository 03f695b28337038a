"""[objective] of pictures."""

from dataclasses import dataclass

from .augment import Augment


@dataclass(frozen=True, kw_only=True)
class ImageClassifyConfig(Augment):
    """`classes` in the order of their numbers; empty: the names of the folders, sorted, numbers by size.

    Of an idx file, whose labels are numbers, `classes` are the names of 0, 1, …"""

    classes: tuple[str, ...] = ()
    teacher: str = ""  # a classifier of these classes, whose answers are learned beside the labels (Touvron et al. 2021)
