"""Products in a step of decoding: one token per row, the same weights thousands of times.

MKL packs a matrix anew at every call, and its last bits depend on how many rows there are below 16 (law 2).  oneDNN keeps
the weights in an order of its own, reads them once a step, and gives a row the same bits beside any others: for one row
that is 3 to 5 times as fast (docs/diary.md).  Whether it is so on this processor is tried before it is relied on; where it
is not, and where matrices are small, rows are filled up to as many as keep their bits: 16, or 4 or 8 where that was tried."""

import math
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]

ROWS = 16
FEWER = (1, 4, 8)  # rows that may do as well: tried
LEAST = 1 << 16  # weights from which oneDNN's start is worth it
TRIED = 64  # rows of the trial
OPS = ("_reorder_linear_weight", "_linear_pointwise")
PACKS = torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, n) for n in OPS)

MOST = 0.25  # of the machine's memory, at most, for packed weights; those of further models are not packed

_fewest: dict[tuple[object, ...], int] = {}
_bytes = [0]  # packed now


def packed_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def filled_product(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int = ROWS) -> Tensor:
    """x Wᵀ + b for x (R, 1, C), filled up to a multiple of `rows`: with 16 the slow twin of all others."""
    R, x = x.shape[0], x.select(1, 0)  # three axes, not contiguous, would be multiplied row by row
    if R % rows:
        x = x.expand(rows, -1) if R == 1 else F.pad(x, (0, 0, 0, -R % rows))
    return F.linear(x, weight, bias)[:R].unsqueeze(1)


def fewest(product: Product, weight: Tensor) -> int:
    """The fewest rows, and multiples of them, with which a row of a product keeps the bits it has beside 63 others.

    Tried once per product, shape, precision and number of threads; 16 are the law's (DESIGN, law 2)."""
    kind = weight.device.type, weight.dtype, torch.get_num_threads()
    how = product.__name__, *weight.shape, *kind
    if how not in _fewest:
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(TRIED, weight.shape[1], generator=rng).to(weight)
        y = product(x, weight, None)

        def keeps(n: int) -> bool:
            cuts = [(0, k * n) for k in (1, 2, 3, 4, 5, 9, 15) if k * n <= TRIED]
            cuts += [(TRIED - n, TRIED), (7, 7 + n)]
            return all(torch.equal(product(x[i:j], weight, None), y[i:j]) for i, j in cuts)

        # of half types a row alone passes the trial and fails later (docs/diary.md)
        single = weight.dtype.itemsize >= 4
        _fewest[how] = next((n for n in FEWER if keeps(n) and (n > 1 or single)), ROWS)
    return _fewest[how]


@dataclass(frozen=True)
class Held:
    """What a step multiplies with: matrices one below the other, in oneDNN's order where `packed`, and their biases.

    Else rows are filled up to a multiple of `rows`."""

    key: list[int]
    weight: Tensor
    bias: Tensor | None
    packed: bool
    rows: int


class Step(nn.Module):
    """The matrices that read one input, as a step wants them: made at the first, and again when one has changed.

    torch's fused optimisers change weights and do not say so: what is held is forgotten where something is learned, and
    whenever train() or eval() is called.  It is no part of a model's state; copies begin empty."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Held | None = None

    def wanted(self, x: Tensor) -> bool:
        """Is x a step of decoding: one token per row (R, 1, C), and nothing to learn?"""
        if torch.is_grad_enabled():
            if self.held is not None:
                self.held = None
            return False
        return x.dim() == 3 and x.shape[1] == 1

    def train(self, mode: bool = True) -> Self:
        self.held = None
        return super().train(mode)

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
        if held.packed:
            return packed_product(x, held.weight, held.bias)
        return filled_product(x, held.weight, held.bias, held.rows)

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
    packed = pack(weight)
    if packed is not None and fewest(packed_product, packed) == 1:
        return Held(key, packed, bias, True, 1)
    return Held(key, weight, bias, False, fewest(F.linear, weight))


def pack(weight: Tensor) -> Tensor | None:
    """The weights in oneDNN's order; None where they are few, not float32 on a CPU, or memory is not plenty."""
    single = weight.dtype == torch.float32 and weight.device.type == "cpu"
    size = weight.numel() * weight.element_size()
    if not PACKS or not single or weight.numel() < LEAST or _bytes[0] + size > MOST * memory():
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    _bytes[0] += size
    weakref.finalize(packed, _freed, size)
    return packed


def _freed(size: int) -> None:
    _bytes[0] -= size


@cache
def memory() -> float:
    """Bytes of the machine's memory; unknown: infinite."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


class Linear(nn.Linear):
    """x Wᵀ + b, in a step of decoding by `Step`.  Who learns with its weights otherwise than through it calls `forget`."""

    def __init__(self, d_in: int, d_out: int, bias: bool = True) -> None:
        super().__init__(d_in, d_out, bias)
        self.one = Step()

    def forward(self, x: Tensor) -> Tensor:
        if self.one.wanted(x):
            return self.one.product(x, self)
        return F.linear(x, self.weight, self.bias)

    def forget(self) -> None:
        self.one.held = None
