"""Our ResNet against transformers' backbone, alone and as DETR freezes it.

float64: sums of some hundred products of numbers near 1, so 1e-10 of the largest number; gradients 1e-9."""

from typing import Any

import pytest
import torch
import transformers as theirs
from torch.testing import assert_close
from transformers.models.detr.modeling_detr import replace_batch_norm

from qkv.errors import ConfigError, DataError
from qkv.models.interface import set_state, state_of
from qkv.parts.resnet import NAMES, UNREAD, ChannelNorm, ResNet, ResNetConfig
from qkv.weights.table import Table

SMALL = dict(embedding_size=6, hidden_sizes=[8, 12, 16], depths=[1, 2, 1])
OURS = dict(d_stem=6, widths=(8, 12, 16), depths=(1, 2, 1))
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bottleneck": ({}, {}),
    "basic": ({"layer_type": "basic"}, {"bottleneck": False}),
    "halving early": ({"downsample_in_bottleneck": True}, {"halve_early": True}),
    "halving first": ({"downsample_in_first_stage": True}, {"halve_first": True}),
    "gelu, grey": (
        {"hidden_act": "gelu", "num_channels": 1},
        {"activation": "gelu", "channels": 1},
    ),
    "same width": (
        {"layer_type": "basic", "embedding_size": 8},
        {"bottleneck": False, "d_stem": 8},
    ),
}
SIZES = ((33, 40), (64, 64), (5, 7))


def table() -> Table:
    return Table(NAMES, skip=UNREAD)


def pair(case: str, out: tuple[int, ...] = (0, 1, 2, 3), frozen: bool = False) -> Any:
    more, own = CASES[case]
    stages = ["stem", "stage1", "stage2", "stage3"]
    config = theirs.ResNetConfig(**{**SMALL, **more}, out_features=[stages[n] for n in out])
    torch.manual_seed(len(case))
    model = theirs.ResNetBackbone(config).double()
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name.endswith("running_var"):
                t.copy_(torch.rand_like(t) + 0.5)
            elif t.is_floating_point():
                t.add_(torch.randn_like(t) * 0.1)
        if frozen:
            replace_batch_norm(model)
    ours = ResNet(ResNetConfig(**{**OURS, **own}, out=out, frozen=frozen)).double()
    set_state(ours, table().forward(model.double().state_dict()))
    return model, ours


def pixels(case: str, size: tuple[int, int], B: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(7)
    return torch.randn(
        B, CASES[case][1].get("channels", 3), *size, generator=g, dtype=torch.float64
    )


def near(ours: Any, want: Any, part: float = 1e-10) -> None:
    assert len(ours) == len(want)
    for a, b in zip(ours, want, strict=True):
        assert_close(a, b, atol=part * max(1.0, float(b.detach().abs().max())), rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_maps_are_the_references(case):
    model, ours = pair(case)
    model.eval(), ours.eval()
    for size in SIZES:
        x = pixels(case, size)
        near(ours(x), model(x).feature_maps)


@pytest.mark.parametrize("out", [(3,), (1, 3), (0,)])
def test_only_the_maps_asked_for(out):
    model, ours = pair("basic", out)
    x = pixels("basic", (33, 40))
    near(ours.eval()(x), model.eval()(x).feature_maps)
    found = [m.shape[1] for m in ours(x)]
    assert found == list(ours.config.out_widths)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("case", ["bottleneck", "basic"])
def test_a_training_step_is_the_references(case, frozen):
    """Maps, gradients and running statistics; frozen, as DETR makes it, norms do not move."""
    model, ours = pair(case, out=(2, 3), frozen=frozen)
    model.train(), ours.train()
    x = pixels(case, (33, 40))
    want, got = model(x).feature_maps, ours(x)
    near(got, want)
    for maps in (want, got):
        sum(m.square().mean() for m in maps).backward()
    left = {k: p.grad for k, p in model.named_parameters()}
    back = table().backward({k: p.grad for k, p in ours.named_parameters()})
    assert back.keys() == left.keys()
    assert frozen == (not any("norm" in name for name in left))
    for name, grad in back.items():
        scale = max(float(left[name].abs().max()), 1e-3)
        assert_close(grad, left[name], atol=1e-9 * scale, rtol=0)
    for name, tensor in table().backward(state_of(ours)).items():
        assert_close(tensor, model.state_dict()[name], atol=1e-10, rtol=0)


def test_names_go_there_and_back():
    model, ours = pair("bottleneck")
    back = table().backward(state_of(ours))
    left = {n for n in model.state_dict() if not n.endswith("num_batches_tracked")}
    assert back.keys() == left
    assert all(torch.equal(back[n], model.state_dict()[n]) for n in left)


def test_a_small_stem_keeps_the_resolution():
    ours = ResNet(ResNetConfig(stem="3x3", **OURS, channels=1, out=(0, 1, 2, 3)))
    shapes = [tuple(m.shape) for m in ours(torch.randn(2, 1, 32, 32))]
    assert shapes == [(2, 6, 32, 32), (2, 8, 32, 32), (2, 12, 16, 16), (2, 16, 8, 8)]
    assert ours.config.strides == (1, 1, 2, 4)
    assert ResNetConfig(out=(1, 2, 3, 4)).strides == (4, 8, 16, 32)


def test_a_frozen_norm_has_nothing_to_learn():
    norm = ChannelNorm(4, frozen=True).train()
    before = {k: t.clone() for k, t in norm.state_dict().items()}
    norm(torch.randn(2, 4, 3, 3) + 5)
    assert not list(norm.parameters())
    assert all(torch.equal(t, before[k]) for k, t in norm.state_dict().items())
    assert set(before) == {"weight", "bias", "running_mean", "running_var"}


@pytest.mark.parametrize(
    "wrong",
    [{"depths": (1,)}, {"depths": (1, 0, 1)}, {"widths": (2, 4, 8)}, {"out": (4,)}, {"out": ()}],
)
def test_impossible_configurations_are_named(wrong):
    with pytest.raises(ConfigError):
        ResNetConfig(**{**OURS, "out": (1,), **wrong})


def test_pictures_of_other_channels_are_named():
    with pytest.raises(DataError, match=r"\(2, 1, 8, 8\), the net reads \(pictures, 3"):
        ResNet(ResNetConfig(**OURS, out=(1,)))(torch.randn(2, 1, 8, 8))


def test_a_bad_batch_does_not_reach_the_running_statistics():
    norm = ChannelNorm(4).train()
    norm(torch.randn(2, 4, 3, 3))
    before = {k: t.clone() for k, t in norm.state_dict().items()}
    bad = torch.randn(2, 4, 3, 3)
    bad[0, 1, 0, 0] = torch.inf
    norm(bad)
    assert all(torch.equal(t, before[k]) for k, t in norm.state_dict().items())
    norm(torch.randn(2, 4, 3, 3))
    assert not torch.equal(norm.running_mean, before["running_mean"])
