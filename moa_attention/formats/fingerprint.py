"""A short name for weights: two files with the same weights have the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import nn

SAMPLES = 64
"""Numbers sampled from each tensor: enough to distinguish fine-tunes, and fast for files of gigabytes."""


def fingerprint(*modules: nn.Module, counts: Callable[[str], bool] = lambda name: True) -> str:
    """A hash of sampled weights, names, shapes and precisions.

    Args: counts: whether a tensor is included, by its name.
    """
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


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
