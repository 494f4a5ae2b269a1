"""What an adapter encoded last, so that another word or setting does not encode the same pictures again. It goes with the adapter."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from ...sockets import LoadedAdapter
from .vision import Reference, check_features, encode_negative, encode_reference

ENTRIES = 16


class Encoding(NamedTuple):
    """Of one reference, on the CPU."""

    features: Tensor
    """(K,F)"""
    negative: Tensor | None
    """(1,F'), as of `encode_negative`."""


def encode_once(adapter: LoadedAdapter, reference: Reference, word: str) -> Encoding:
    """The encoding of a reference, computed or found.

    Raises: ValueError as `encode_reference` and `check_features`.
    """
    key = reference_key(reference)
    if key not in adapter.encoded:
        features = encode_reference(adapter, reference)
        check_features(word, adapter, features)
        if len(adapter.encoded) == ENTRIES:
            del adapter.encoded[next(iter(adapter.encoded))]
        adapter.encoded[key] = Encoding(features, encode_negative(adapter, reference))
    return adapter.encoded[key]


def reference_key(reference: Reference) -> Hashable:
    """The same for the same pictures, masks, face embeddings, settings and CLIP vision model."""
    vision = reference.clip_vision
    content = [digest(part) if isinstance(part, Tensor) else part for part in reference._replace(clip_vision=None)]
    return (None if vision is None else weakref.ref(vision), *content)


def digest(tensor: Tensor) -> str:
    """A hash of a tensor's shape and values."""
    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{tuple(tensor.shape)} {tensor.dtype} {hashlib.sha256(values.tobytes()).hexdigest()}"
