"""Learning rates are pure functions of the update; decay and clipping touch what they should."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qkv.errors import ConfigError
from qkv.learn.optim import OptimConfig, adamw, gradient_norm, learning_rate, set_rate

SCHEDULES = ("constant", "inverse-sqrt", "cosine", "linear", "wsd")
anything = given(
    st.sampled_from(SCHEDULES),
    st.integers(0, 60),
    st.integers(2, 200),
    st.floats(0, 1),
    st.floats(0.05, 1),
)
quick = settings(max_examples=80, deadline=None, derandomize=True)


def rates(schedule, warmup, steps, final=0.0, decay=0.2, lr=0.5):
    config = OptimConfig(lr=lr, schedule=schedule, warmup=warmup, final=final, decay=decay)
    return [learning_rate(config, k, steps) for k in range(1, steps + 1)]


@anything
@quick
def test_rates_are_positive_until_the_end_and_never_above_the_peak(
    schedule, warmup, steps, final, decay
):
    seen = rates(schedule, warmup, steps, final, decay)
    assert all(0 <= r <= 0.5 * (1 + 1e-12) for r in seen)
    assert all(r > 0 for r in seen[:-1])


@anything
@quick
def test_rates_rise_in_the_warm_up_and_never_after_it(schedule, warmup, steps, final, decay):
    seen = rates(schedule, warmup, steps, final, decay)
    rising, falling = seen[:warmup], seen[max(warmup - 1, 0) :]
    assert all(a < b for a, b in zip(rising, rising[1:], strict=False))
    assert all(a >= b * (1 - 1e-12) for a, b in zip(falling, falling[1:], strict=False))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [100, 1000, 9000])
def test_rates_are_continuous(schedule, warmup):
    """No step changes the rate by more than a small share of its peak; the warm-up meets the peak exactly."""
    seen = rates(schedule, warmup, 10_000)
    assert seen[warmup - 1] == 0.5
    steepest = max(1 / warmup, math.pi / 2 / (10_000 - warmup), 1 / 1000)  # cosine's slope is π/2
    assert max(abs(a - b) for a, b in zip(seen, seen[1:], strict=False)) <= 0.5 * steepest * 1.001


def test_inverse_sqrt_is_the_rate_of_the_paper():
    """d^-0.5 · min(step^-0.5, step · warmup^-1.5), Vaswani et al. 2017, eq. 3; its peak is (d · warmup)^-0.5."""
    d, warmup, steps = 512, 40, 1000
    ours = rates("inverse-sqrt", warmup, steps, lr=(d * warmup) ** -0.5)
    for k, rate in enumerate(ours, 1):
        assert math.isclose(rate, d**-0.5 * min(k**-0.5, k * warmup**-1.5), rel_tol=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_schedules_end_where_they_are_told_to(schedule, final):
    assert math.isclose(rates(schedule, 10, 100, final)[-1], 0.5 * final, abs_tol=1e-15)


def test_named_points():
    assert rates("constant", 0, 5) == [0.5] * 5
    assert math.isclose(rates("cosine", 0, 100)[49], 0.25)
    assert math.isclose(rates("linear", 0, 100)[24], 0.5 * 0.75)
    flat = rates("wsd", 10, 100, decay=0.2)
    assert flat[9:80] == [0.5] * 71 and math.isclose(flat[89], 0.25)
    assert rates("inverse-sqrt", 0, 4)[::3] == [0.5, 0.25]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"eps": 0.0},
        {"warmup": -1},
        {"clip": -1.0},
        {"final": 2.0},
        {"decay": 0.0},
        {"betas": (0.9,)},
        {"betas": (0.9, 1.0)},
        {"weight_decay": math.inf},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_named(wrong):
    with pytest.raises(ConfigError) as e:
        OptimConfig(**wrong)
    assert e.value.code == "QKV-012" and next(iter(wrong)) in e.value.seen and e.value.fix


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.linear, self.norm = nn.Embedding(4, 3), nn.Linear(3, 4), nn.LayerNorm(3)
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_decay_pulls_matrices_only_and_no_embedding_tied_or_not():
    net = Small()
    groups = adamw(net, OptimConfig(weight_decay=0.1)).param_groups
    decayed = [p for g in groups if g["weight_decay"] for p in g["params"]]
    plain = [p for g in groups if not g["weight_decay"] for p in g["params"]]
    assert [id(p) for p in decayed] == [id(net.linear.weight)]
    names = {id(p): n for n, p in net.named_parameters()}
    assert {names[id(p)] for p in plain} == {
        "embed.weight",
        "linear.bias",
        "norm.weight",
        "norm.bias",
    }


def test_a_relative_rate_moves_every_tensor_by_the_same_share_of_its_size():
    """Adam written out in float64, with lr · max(10⁻³, RMS(θ)) for each tensor; three steps, rounding only."""
    torch.manual_seed(0)
    net = Small().double()
    with torch.no_grad():
        net.embed.weight.mul_(30)
        net.linear.bias.zero_()
    config = OptimConfig(lr=0.1, relative=True)
    optimizer = adamw(net, config)
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    want = {n: p.detach().clone() for n, p in trained.items()}
    m = {n: torch.zeros_like(p) for n, p in want.items()}
    v = {n: torch.zeros_like(p) for n, p in want.items()}
    (a, b), lr = config.betas, (0.1, 0.02, 0.3)
    for t in (1, 2, 3):
        for n, p in trained.items():
            g = torch.randn(p.shape, dtype=torch.float64)
            p.grad = g.clone()
            m[n], v[n] = a * m[n] + (1 - a) * g, b * v[n] + (1 - b) * g * g
            size = max(1e-3, float(want[n].square().mean().sqrt()))
            change = (m[n] / (1 - a**t)) / ((v[n] / (1 - b**t)).sqrt() + config.eps)
            want[n] = want[n] - lr[t - 1] * size * change
        set_rate(optimizer, lr[t - 1], relative=True)
        optimizer.step()
    for n, p in trained.items():
        torch.testing.assert_close(p.detach(), want[n], atol=1e-12, rtol=1e-12)
    set_rate(optimizer, 0.5, relative=False)
    assert {g["lr"] for g in optimizer.param_groups} == {0.5}


def test_the_gradient_norm_is_that_of_one_long_vector():
    net = Small()
    for i, p in enumerate(net.parameters()):
        if p.requires_grad and i != 1:  # one parameter without a gradient
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    flat = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(gradient_norm(net.parameters()), flat.norm(), atol=0, rtol=1e-6)
