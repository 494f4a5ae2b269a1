"""Synchronisations and peak memory of one step on a CUDA device, as PyTorch reports them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch

from .calls import StepInputs, denoise
from .variants import Attached


class CudaCost(NamedTuple):
    """Of one call."""

    syncs: int
    """PyTorch's warnings of operations that wait for the device: reads, and copies that block."""
    peak: int
    """Peak bytes beyond those allocated before the call."""


def measure_on_cuda(attached: Attached, step: StepInputs) -> CudaCost:
    """Call once, after a warm-up."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            denoise(attached.model, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return CudaCost(
        sum("called a synchronizing" in str(warning.message) for warning in caught),
        torch.cuda.max_memory_allocated() - before,
    )
