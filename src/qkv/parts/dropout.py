"""Dropout whose randomness is an argument of the step, not of the process.

Inside `with noise(seed, step):` every mask is a pure function of (seed, step, call order): a resumed run draws what the
uninterrupted one drew.  On a CPU the masks come from numpy's SFC64, one byte per number: about ten times cheaper than
`bernoulli_` (docs/diary.md), with p rounded to a multiple of 1/256 and the scale corrected for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

_source: ContextVar["Noise | None"] = ContextVar("noise", default=None)


class Noise:
    """A stream of random bytes keyed by whole numbers."""

    def __init__(self, *key: int) -> None:
        self.key = key
        self.bits = np.random.SFC64(np.random.SeedSequence(key))
        self.generators: dict[torch.device, torch.Generator] = {}

    def kept(self, shape: torch.Size, device: torch.device, cut: int) -> Tensor:
        """uint8 of this shape: 0 with probability cut / 256, else 1."""
        n = shape.numel()
        if device.type == "cpu":
            drawn = self.bits.random_raw(-(-n // 8)).view(np.uint8)[:n]
            return torch.from_numpy((drawn >= cut).view(np.uint8)).view(shape)
        if device not in self.generators:
            seed = int(np.random.SeedSequence(self.key).generate_state(1, np.uint64)[0] >> 1)
            self.generators[device] = torch.Generator(device).manual_seed(seed)
        made = torch.empty(shape, dtype=torch.uint8, device=device)
        return made.random_(generator=self.generators[device]).ge(cut).to(torch.uint8)


@contextmanager
def noise(*key: int) -> Iterator[None]:
    """Everything random inside a forward pass is drawn from this key, e.g. (seed, step, micro-batch)."""
    token = _source.set(Noise(*key))
    try:
        yield
    finally:
        _source.reset(token)


class _Drop(torch.autograd.Function):
    """x · kept · scale; remembers one byte per number, forward and backward."""

    @staticmethod
    def forward(ctx, x: Tensor, kept: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return x * kept.to(x.dtype).mul_(scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (kept,) = ctx.saved_tensors
        return grad * kept.to(grad.dtype).mul_(ctx.scale), None, None


def dropout(x: Tensor, p: float) -> Tensor:
    """x with a share p of its numbers set to 0 and the others divided by 1 - p (Srivastava et al. 2014).

    Outside `noise(...)` the mask comes from torch's own generator."""
    source = _source.get()
    if source is None:
        return torch.nn.functional.dropout(x, p)
    cut = round(p * 256)
    kept = source.kept(x.shape, x.device, cut)
    dropped: Tensor = _Drop.apply(x, kept, 256 / (256 - cut))  # type: ignore[no-untyped-call]
    return dropped


@dataclass(frozen=True)
class Pieces:
    """A mask that is never held whole: a piece is the same however often it is made, forward and backward."""

    p: float
    seed: int

    @classmethod
    def of(cls, p: float) -> Self:
        """The next mask of this step's noise."""
        source = _source.get()
        if source is None:
            return cls(p, int(torch.randint(1 << 62, (1,))))
        return cls(p, int(source.bits.random_raw()))

    def fill(self, out: Tensor, *piece: int) -> Tensor:
        """0 with probability p, else 1 / (1 - p), p rounded to 1/256; out float on a CPU, piece whole numbers from 0 on."""
        bits = np.random.SFC64(np.random.SeedSequence((self.seed, *piece)))
        n, cut = out.numel(), round(self.p * 256)
        drawn = bits.random_raw(-(-n // 8)).view(np.uint8)[:n]
        kept = torch.from_numpy((drawn >= cut).view(np.uint8)).view(out.shape)
        return out.copy_(kept).mul_(256 / (256 - cut))


class Dropout(nn.Module):
    """`dropout` while training, the identity otherwise."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x

    def extra_repr(self) -> str:
        return f"p={self.p}"
