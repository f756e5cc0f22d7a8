"""What the C library does with memory that a tensor no longer needs."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory(device: torch.device) -> bool:
    """Let glibc keep large freed blocks for the next tensor, where `device` is the CPU. Returns whether it will.

    By default each block over 32 MiB goes back to the kernel, and the next step's is paged in anew, zeroed, 4 KiB at a
    time: a fifth of the processor time of a language model's training step. Kept, forward and backward of
    SmolLM2-135M (4 × 100 to 500 tokens, bf16, one thread) took 23.6 s of processor time instead of 30.0 s, and
    4.6 GB at the peak instead of 4.3 GB. Whoever has set malloc's own environment variables is obeyed.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    if any(name == "GLIBC_TUNABLES" or (name.startswith("MALLOC_") and name.endswith("_")) for name in os.environ):
        return False
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20}
        return all(mallopt(option, value) for option, value in settings.items())
    return False
