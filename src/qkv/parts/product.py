"""Products in a step of decoding: one token per row, the same weights thousands of times.

MKL packs a matrix anew at every call, and its last bits depend on how many rows there are below 16 (law 2).  oneDNN keeps
the weights in an order of its own, reads them once a step, and gives a row the same bits beside any others: for one row
that is 3 to 5 times as fast (docs/diary.md).  Whether it is so on this processor is tried before it is relied on; where it
is not, and where matrices are small, rows are filled up to 16."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 16
LEAST = 1 << 16  # weights from which oneDNN's start is worth it
TRIED = 64  # rows of the trial
OPS = ("_reorder_linear_weight", "_linear_pointwise")
PACKS = torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, n) for n in OPS)

_steady: dict[tuple[int, ...], bool] = {}


def packed_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def filled_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b for x (R, 1, C), with rows filled up to a multiple of 16: the slow twin of `packed_product`."""
    R = x.shape[0]
    if R % ROWS == 0:
        return F.linear(x, weight, bias)
    # two axes: three, and not contiguous, would be multiplied row by row
    full = x[0].expand(ROWS, -1) if R == 1 else F.pad(x[:, 0], (0, 0, 0, -R % ROWS))
    return F.linear(full, weight, bias)[:R].unsqueeze(1)


def steady(weight: Tensor, packed: Tensor) -> bool:
    """Does a row of a packed product keep its bits beside 0 … 63 others?  Tried once per shape and number of threads."""
    how = (*weight.shape, torch.get_num_threads())
    if how not in _steady:
        x = torch.randn(TRIED, weight.shape[1], generator=torch.Generator().manual_seed(0))
        y = packed_product(x, packed, None)
        parts = [slice(0, n) for n in (1, 2, 3, 4, 5, 8, 15, 16, 33)]
        parts += [slice(7, 8), slice(21, 23), slice(60, 64)]
        _steady[how] = all(torch.equal(packed_product(x[p], packed, None), y[p]) for p in parts)
    return _steady[how]


@dataclass(frozen=True)
class Held:
    """What a step multiplies with: matrices one below the other, in oneDNN's order where `packed`, and their biases."""

    key: list[int]
    weight: Tensor
    bias: Tensor | None
    packed: bool


class Step:
    """The matrices that read one input, as a step wants them: made at the first, and again when one has changed.

    torch's fused optimisers change weights and do not say so: its module forgets it when it learns, and whenever train() or
    eval() is called.  It is no part of the module's state; copies begin empty."""

    def __init__(self) -> None:
        self.held: Held | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Step":
        return Step()

    def __reduce__(self) -> tuple[type["Step"], tuple[()]]:
        return Step, ()

    def product(self, x: Tensor, *parts: nn.Linear) -> Tensor:
        """x [W1; W2; …]ᵀ + b: (R, 1, C) -> (R, 1, V1 + V2 + …); the bits of a row are its own."""
        weight = parts[0].weight
        mixed = x.dtype != weight.dtype or torch.is_autocast_enabled(x.device.type)
        if mixed or weight.is_inference():  # which never tells whether it has changed
            made = [filled_product(x, p.weight, p.bias) for p in parts]
            return made[0] if len(made) == 1 else torch.cat(made, -1)
        held = self.of(parts)
        return (packed_product if held.packed else filled_product)(x, held.weight, held.bias)

    def of(self, parts: Sequence[nn.Linear]) -> Held:
        key = [torch.get_num_threads()]
        for p in parts:
            for x in (p.weight, p.bias):
                if x is not None:
                    key += x.data_ptr(), x._version
        if self.held is None or self.held.key != key:
            self.held = hold(key, parts)
        return self.held


def hold(key: list[int], parts: Sequence[nn.Linear]) -> Held:
    weight: Tensor = parts[0].weight.detach()
    bias: Tensor | None = parts[0].bias
    if len(parts) > 1:
        weight = torch.cat([p.weight.detach() for p in parts])
        bias = None if bias is None else torch.cat([p.bias.detach() for p in parts])
    single = weight.dtype == torch.float32 and weight.device.type == "cpu"
    if PACKS and single and weight.numel() >= LEAST:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        if steady(weight, packed):
            return Held(key, packed, bias, True)
    return Held(key, weight, bias, False)


def stepping(x: Tensor) -> bool:
    """Is x a step of decoding: one token per row (R, 1, C), and nothing to learn?"""
    return not torch.is_grad_enabled() and x.dim() == 3 and x.shape[1] == 1


class Linear(nn.Linear):
    """x Wᵀ + b, in a step of decoding by `Step`.  Who learns with its weights otherwise than through it calls `forget`."""

    def __init__(self, d_in: int, d_out: int, bias: bool = True) -> None:
        super().__init__(d_in, d_out, bias)
        self.one = Step()

    def forward(self, x: Tensor) -> Tensor:
        if stepping(x):
            return self.one.product(x, self)
        if self.one.held is not None and torch.is_grad_enabled():
            self.forget()
        return F.linear(x, self.weight, self.bias)

    def forget(self) -> None:
        self.one.held = None

    def train(self, mode: bool = True) -> Self:
        self.forget()
        return super().train(mode)
