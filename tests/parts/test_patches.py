"""Patches and places: where a picture's tokens begin."""

import math

import pytest
import torch

from qkv.parts.patches import plane


def test_positions_begin_as_two_dimensional_sines():
    """Against the definition by single numbers; cells that are near are more alike than those far apart."""
    C, grid = 10, (3, 4)
    made = plane(grid, C)
    assert made.shape == (12, C) and made[:, 8:].eq(0).all()
    for r in range(3):
        for c in range(4):
            for i in range(2):
                w = 10_000 ** (-4 * i / 8)
                said = made[r * 4 + c, [i, 2 + i, 4 + i, 6 + i]].tolist()
                want = [math.sin(r * w), math.cos(r * w), math.sin(c * w), math.cos(c * w)]
                assert said == pytest.approx(want, abs=1e-6)  # float32
    near = torch.nn.functional.normalize(plane((7, 7), 64), dim=1)
    assert near[24] @ near[25] > near[24] @ near[27] > near[24] @ near[48]
