"""AdamW, clipping, and learning rates as pure functions of the step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..errors import ConfigError

SMALLEST = 1e-3  # size of a tensor for its relative rate: what begins with zeros learns too
Schedule = Literal["constant", "inverse-sqrt", "cosine", "linear", "wsd"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    lr: float = 1e-3  # the highest learning rate, reached at the end of the warm-up
    schedule: Schedule = "inverse-sqrt"
    warmup: int = 400  # steps from 0 to lr, linearly
    final: float = 0.0  # cosine, linear, wsd: the share of lr at the last step
    decay: float = 0.2  # wsd: the share of all steps spent falling at the end
    betas: tuple[float, ...] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.0  # on matrices only; norms, biases and embeddings are left alone
    relative: bool = False  # each tensor's rate is lr x the size of its numbers, as T5's
    clip: float = 1.0  # largest gradient norm; 0: no clipping

    def __post_init__(self) -> None:
        for name, low in (("lr", 0.0), ("eps", 0.0)):
            if not getattr(self, name) > low:
                raise ConfigError(
                    f"optim.{name} must be > 0 (got {getattr(self, name)})",
                    fix=f"try optim.{name}={'5e-4' if name == 'lr' else '1e-8'}",
                )
        for name in ("warmup", "final", "weight_decay", "clip"):
            if not getattr(self, name) >= 0 or math.isinf(getattr(self, name)):
                raise ConfigError(
                    f"optim.{name} must be >= 0 and finite (got {getattr(self, name)})",
                    fix=f"try optim.{name}=0",
                )
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ConfigError(
                f"optim.betas must be two numbers in [0, 1) (got {list(self.betas)})",
                fix="try optim.betas=[0.9, 0.98]",
            )
        if not 0 < self.decay <= 1 or not 0 <= self.final <= 1 or math.isinf(self.lr):
            raise ConfigError(
                f"optim.decay in (0, 1], final in [0, 1], lr finite (got {self.decay}, {self.final}, {self.lr})",
                fix="try optim.decay=0.2",
            )


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The rate of update number `step` = 1 … steps.

    warm-up       lr · step / warmup                              while step <= warmup
    inverse-sqrt  lr · √(warmup / step)                           Vaswani et al. 2017, eq. 3, with its peak named
    cosine        lr · (f + (1 - f) · (1 + cos πx) / 2)           Loshchilov & Hutter 2017; x runs 0 → 1 after the warm-up
    linear        lr · (1 - (1 - f) x)
    wsd           lr, then linear to f over the last `decay`      Hu et al. 2024, section 4.2"""
    lr, warmup, f = config.lr, config.warmup, config.final
    if step <= warmup:
        return lr * step / warmup
    if config.schedule == "inverse-sqrt":
        return lr * math.sqrt(max(warmup, 1) / step)
    x = min(1.0, (step - warmup) / max(1, steps - warmup))
    if config.schedule == "cosine":
        return lr * (f + (1 - f) * (1 + math.cos(math.pi * x)) / 2)
    if config.schedule == "linear":
        return lr * (1 - (1 - f) * x)
    if config.schedule == "wsd":
        # never before the warm-up's end: the rate must not jump down from its peak
        falling = max(1, min(round(config.decay * steps), steps - warmup))
        left = (steps - step) / falling
        return lr * (1.0 if left >= 1 else f + (1 - f) * max(0.0, left))
    return lr


def adamw(net: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) in one fused call; the loop sets the rate of each step."""
    trained = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    embedded = {id(m.weight) for m in net.modules() if isinstance(m, nn.Embedding)}
    decayed = [p for _, p in trained if p.dim() >= 2 and id(p) not in embedded]
    plain = [p for _, p in trained if p.dim() < 2 or id(p) in embedded]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if config.relative:  # each with a rate of its own
        groups = [{**g, "params": [p]} for g in groups for p in g["params"]]
    betas = (config.betas[0], config.betas[1])
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.lr, betas=betas, eps=config.eps, fused=True
    )


@torch.no_grad()
def set_rate(optimizer: torch.optim.Optimizer, lr: float, relative: bool) -> None:
    """The rate of this step; with `relative` that of each tensor is lr · max(10⁻³, RMS(θ)).

    Shazeer & Stern 2018 (Adafactor), section 8: vectors of deviation 1 and matrices of 0.05 change by the same share."""
    groups = optimizer.param_groups
    sizes = [1.0] * len(groups)
    if relative:
        tensors = [p for group in groups for p in group["params"]]
        norms = torch.stack(list(torch._foreach_norm(tensors))).tolist()
        sizes = [max(SMALLEST, n / p.numel() ** 0.5) for n, p in zip(norms, tensors, strict=True)]
    for group, size in zip(groups, sizes, strict=True):
        group["lr"] = lr * size


def gradient_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """The L2 norm of all gradients together, in the order of the parameters."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(list(torch._foreach_norm(grads))))
    return norm
