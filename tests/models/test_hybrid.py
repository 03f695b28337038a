"""A CNN's map read as tokens: shapes, budgets, sizes of pictures, files, and what is refused."""

import pytest
import torch
from torch.testing import assert_close

from qkv import checkpoints, specimens
from qkv.data.images.process import Processor
from qkv.errors import ConfigError, DataError
from qkv.look.record import record
from qkv.model import Model
from qkv.models import build, configure, describe, hybrid
from qkv.models.interface import state_of
from qkv.pictures import of_pixels


def made(**more):
    torch.manual_seed(0)
    values = {"family": "hybrid", "size": "tiny", "labels": ["a", "b", "c"]}
    config = configure(values | more)
    return config, build(config)


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_small_one_has_vits_budget():
    sizes = {
        family: count(build(configure({"family": family, "size": "mini", "labels": ["x"] * 10})))
        for family in ("vit", "hybrid")
    }
    assert sizes["hybrid"] <= sizes["vit"] < 210_000
    assert sizes["hybrid"] > 0.95 * sizes["vit"]


@pytest.mark.parametrize("size", hybrid.SIZES)
def test_sizes_build_and_describe(size):
    config = configure({"family": "hybrid", "size": size, "labels": ["a", "b"]})
    assert configure(describe(config)) == config
    with torch.device("meta"):
        net = build(config)
    grid = {"tiny": (7, 7), "mini": (7, 7), "cifar": (8, 8), "r50-b16": (14, 14)}[size]
    assert net.grid(*net.image_size) == grid


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"pool": "first"},
        {"widths": [8, 16, 32], "strides": [1, 2, 3]},
        {"cnn": "resnet", "d_stem": 4, "stem": "3x3"},
        {
            "cnn": "resnet",
            "d_stem": 4,
            "bottleneck": True,
            "depths": [1, 2],
            "image_size": [37, 50],
        },
    ],
)
def test_tokens_are_the_cells_of_the_map(more):
    """What the stack reads, cell by cell, is the CNN's map, projected, with its position."""
    config, net = made(**more)
    net.eval()
    for size in (net.image_size, (net.image_size[0] + 5, net.image_size[1] + 9)):
        pixels = torch.randn(2, 1, *size)
        with torch.no_grad():
            maps = net.embed.cnn(pixels)
            maps = maps[0] if config.cnn == "resnet" else maps
            rows, columns = net.grid(*size)
            assert maps.shape[-2:] == (rows, columns)
            x = net.embed(pixels)
        assert x.shape == (2, net.firsts + rows * columns, config.d_model)
        i, j = rows - 1, columns // 2
        cell = maps[:, :, i, j]
        cell = cell if net.embed.project is None else net.embed.project(cell)
        at = net.firsts + i * columns + j
        want = cell + net.embed.places.positions((rows, columns))[0, at]
        assert_close(x[:, at], want, atol=1e-5, rtol=0)  # float32, other kernels of the convolution


def test_positions_of_the_learned_grid_are_taken_as_they_are():
    _, net = made()
    assert net.embed.places.positions((7, 7)) is net.embed.places.position
    assert net.embed.places.positions((5, 9)).shape == (1, 45, 32)


def test_maps_are_recorded_by_cell():
    _, net = made(pool="first")
    with record(net.eval()) as maps, torch.no_grad():
        net.encode(of_pixels(torch.randn(2, 1, 28, 28)))
    (one,) = maps.values()
    assert one.shape == (2, 2, 50, 50)


def test_saved_and_loaded_it_answers_with_the_same_bits(tmp_path):
    config, net = made()
    with torch.no_grad():  # running statistics away from 0 and 1
        net.train().logits(specimens.pictures(net, 8))
    model = Model(net, None, config, processor=Processor(size=None, mean=(0.5,), std=(0.5,)))
    model.save(tmp_path / "m")
    loaded = checkpoints.load(tmp_path / "m", device="cpu")
    assert loaded.config == config
    assert all(torch.equal(t, state_of(net)[n]) for n, t in state_of(loaded.net).items())
    assert any(".running_mean" in n for n in state_of(loaded.net))
    batch = specimens.pictures(net, 3)
    with torch.inference_mode():
        assert torch.equal(loaded.net.logits(batch), net.eval().logits(batch))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"strides": [1]}, "strides = "),
        ({"strides": [1, 0]}, "strides = "),
        ({"depths": [1]}, "depths = "),
        ({"widths": []}, "widths = "),
        ({"channels": 0}, "channels = 0"),
        ({"head": "distilled"}, "no head 'distilled'"),
        ({"labels": []}, "0 labels"),
        ({"n_heads": 5}, "5 heads"),
        ({"image_size": 0}, "image_size"),
        ({"cnn": "resnet", "bottleneck": True, "widths": [2, 4]}, "widths"),
    ],
)
def test_impossible_configurations_are_named(more, said):
    with pytest.raises(ConfigError, match=said):
        made(**more)


def test_pictures_of_other_channels_are_named():
    _, net = made()
    with pytest.raises(DataError, match="reads \\(pictures, 1"):
        net.logits(of_pixels(torch.randn(2, 3, 28, 28)))
