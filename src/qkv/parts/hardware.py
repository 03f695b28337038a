"""What the processor is good at."""

import torch

KEPT = 1 << 25  # numbers that a call may keep for its gradient; more are made again


def has_bf16(device: torch.device) -> bool:
    """True where bf16 matrix products run in hardware; emulated ones are slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def multiplied(of: torch.dtype, sums: torch.dtype) -> torch.dtype:
    """The type of a CPU's products of numbers of type `of`, all but those of scores."""
    half = of == torch.bfloat16 and has_bf16(torch.device("cpu"))
    return of if half else sums


def add_product(to: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """to += a b, matrices; `to` may be of a wider type."""
    if to.dtype == a.dtype:
        to.addmm_(a, b)
    else:
        to.add_(torch.mm(a, b))
