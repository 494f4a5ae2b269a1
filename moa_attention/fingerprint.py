"""A short name for weights, to tell whether two files hold the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from torch import nn

SAMPLES = 64
"""Numbers of each tensor that count: enough to tell fine-tunes apart, quick for files of gigabytes."""


def fingerprint(*modules: nn.Module, counts: Callable[[str], bool] = lambda name: True) -> str:
    """Args: counts: which tensors, by name."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, tensor in module.state_dict().items():
            if not counts(name):
                continue
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, len(flat) // SAMPLES)].float().cpu().contiguous()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
