"""What makes a CPU train faster: the allocator, and bf16 where the processor has it."""

import ctypes
import sys

import torch

from ..parts.hardware import has_bf16

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of giving them back to the kernel after every tensor.

    A step frees and asks for the same megabytes again; page faults then cost a quarter of it (docs/diary.md).
    True where it took effect; other systems are left alone."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(
        mallopt(M_MMAP_MAX, 0)
        and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        and mallopt(M_TOP_PAD, 64 << 20)
    )


def mixed(precision: str, device: torch.device) -> bool:
    """Are products made in bf16?  "bf16", or "auto" where the hardware has it."""
    return precision == "bf16" or (precision == "auto" and has_bf16(device))
