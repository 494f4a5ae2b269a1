"""Image features that IPAdapter_plus saved (.ipadpt), as subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ....moa_attention.adapters.base import EncoderInput
from ....moa_attention.formats.errors import StoredFileError
from ...sockets import LoadedAdapter, Subject
from ..files.pickled import EMBED, open_pickled
from .vision import Reference, encode_negative

DIMENSIONS: dict[EncoderInput, int] = {"embedding": 2, "patches": 3}
"""Of the features of several pictures: (K,F), or (K,P,F) with P patches."""
PICTURES, NUMBERS = 64, 1 << 25
"""Limits of a file: pictures, and numbers in all."""


def read_embeds(path: Path) -> Tensor:
    """The features of K pictures as a CLIP vision model gives them: (K,F) or (K,P,F) in float32.

    Raises: StoredFileError when the file is damaged, or holds no such tensor.
    """
    stored = open_pickled(path, alone=True)
    outline = stored.tensors[EMBED]
    found = f"{tuple(outline.shape)} of {str(outline.dtype).removeprefix('torch.')}"
    fits = outline.ndim in DIMENSIONS.values() and outline.is_floating_point()
    if not fits or len(outline) > PICTURES or outline.numel() > NUMBERS:
        raise StoredFileError(
            path,
            f"must contain image features, (pictures, width) or (pictures, patches, width) of at most {PICTURES} pictures, but "
            f"contains {found}. Save it again with 'IPAdapter Save Embeds'.",
        )
    embeds = stored.read([EMBED])[EMBED].float()
    if not embeds.isfinite().all():
        raise StoredFileError(path, "contains NaN or infinity instead of image features. Encode the pictures again.")
    return embeds


def subject_of_embeds(adapter: LoadedAdapter, path: Path, word: str, clip_vision: Any = None) -> Subject:
    """A subject whose image tokens are those of all pictures in a file, side by side.

    Args: clip_vision: for the negative image of adapters that read patches, which is not in the file.
    Raises: StoredFileError as `read_embeds`, and when the adapter makes NaN or infinity of the features; ValueError when the adapter
        reads other features.
    """
    module = adapter.patcher.model
    [(name, width), *others] = module.requires.items()
    if others or name not in DIMENSIONS or not module.feature_is_tokens:
        raise ValueError(
            f"'Load Embeds (MoA)' needs an IP-Adapter that reads a CLIP vision model alone, but '{adapter.name}' needs "
            f"{', '.join(module.requires)}. Encode its pictures with 'Encode Subject (MoA)'."
        )
    embeds = read_embeds(path)
    if (embeds.ndim, embeds.shape[-1]) != (DIMENSIONS[name], width):
        raise ValueError(
            f"'{path.name}' in 'Load Embeds (MoA)' holds features {tuple(embeds.shape)}, but adapter '{adapter.name}' reads {name} "
            f"{width} wide with {DIMENSIONS[name]} dimensions. Choose the preset with which the file was saved, or encode the "
            "pictures again with 'Encode Subject (MoA)'."
        )
    comfy.model_management.load_models_gpu([adapter.patcher])
    with torch.inference_mode():
        tokens = module.encode({name: embeds.to(adapter.patcher.load_device)}).float().cpu()
        if not tokens.isfinite().all():
            raise StoredFileError(
                path,
                f"holds features of which adapter '{adapter.name}' makes NaN or infinity. Encode the pictures again.",
            )
        known = name == "embedding" or clip_vision is not None
        negative = encode_negative(adapter, Reference(embeds, clip_vision=clip_vision)) if known else None
    features = tokens.reshape(1, -1)
    count = features.shape[-1] // module.config.text_width
    return Subject(word, 1, features, adapter.encoder, tokens=count, negative=negative)
