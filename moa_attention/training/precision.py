"""Arithmetic in bfloat16, where a device computes it fast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is no slower than float32 there. A CPU without instructions for it takes some thirty times as long."""
    if device.type != "cpu":
        return True
    # Not public, and absent from older releases: torch has no public function that distinguishes native from emulated bfloat16.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return native is not None and native()


def mixed_precision(device: torch.device, wanted: bool = True) -> AbstractContextManager[object]:
    """Autocast to bfloat16 when it is `wanted` and fast there; otherwise an enclosing autocast is switched off.

    The meta device has no autocast.
    """
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and has_fast_bfloat16(device))
