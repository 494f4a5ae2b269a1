"""What one step waits for and holds on a CUDA card, as the card's own books say."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch

from .calls import Given, denoise
from .variants import Attached


class Booked(NamedTuple):
    """Of one call on a card."""

    syncs: int
    """How often PyTorch warned that an operation waits for the device: reads, and copies that block."""
    peak: int
    """Bytes that were taken, at most, beyond those taken before the call."""


def book(attached: Attached, step: Given) -> Booked:
    """Call once, on a card that is warm."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waited:
            warnings.simplefilter("always")
            denoise(attached.model, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Booked(
        sum("called a synchronizing" in str(warning.message) for warning in waited),
        torch.cuda.max_memory_allocated() - before,
    )
