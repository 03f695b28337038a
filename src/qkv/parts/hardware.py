"""What the processor is good at."""

import torch


def has_bf16(device: torch.device) -> bool:
    """True where bf16 matrix products run in hardware; emulated ones are slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
