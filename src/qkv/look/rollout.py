"""From maps over tokens to maps over places of a picture.  Numbers in, numbers out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .views import Array, _array


def rollout(maps: Sequence[Any]) -> Array:
    """Which token of the input each token of the last layer comes from, if what attention mixes is mixed in equal parts
    with what was there: R = A_L … A_2 A_1, A_l = (mean over heads + I) / 2 (Abnar & Zuidema 2020, section 3).

    maps: of each layer (H, S, S), first layer first -> (S, S), rows sum to 1."""
    layers = [_array(m, 3, f"layer {i}").mean(0) for i, m in enumerate(maps)]
    found = np.eye(len(layers[0]))
    for layer in layers:
        mixed = layer + np.eye(len(layer))
        found = mixed / mixed.sum(-1, keepdims=True) @ found
    return found


def places(row: Any, firsts: int, grid: tuple[int, int]) -> Array:
    """A row over all tokens -> (rows, columns), those that stand for no place of the picture left out."""
    made: Array = np.asarray(row, dtype=np.float64)[..., firsts:]
    return made.reshape(*made.shape[:-1], *grid)
