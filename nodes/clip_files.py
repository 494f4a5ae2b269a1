"""Which files of models/clip_vision fit an adapter: told by the shapes in their headers, without loading anything."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from safetensors import SafetensorError, safe_open

from ..moa_attention.image_prompt import Sees

FOLDER = "clip_vision"
SHAPES: dict[Sees, tuple[tuple[str, int], ...]] = {
    "embedding": (("visual_projection.weight", 0), ("visual.proj", 1)),
    "patches": (("vision_model.post_layernorm.weight", 0), ("visual.ln_post.weight", 0)),
}
"""Tensors whose length along an axis is the width of what is seen: names as in transformers, and as in OpenCLIP."""


def fitting(sees: Sees, width: int) -> str:
    """A sentence for messages: which files fit, or that none does."""
    names = folder_paths.get_filename_list(FOLDER)
    fit = [name for name in names if width_of(folder_paths.get_full_path(FOLDER, name), sees) == width]
    if fit:
        return f"Of models/clip_vision fits: {', '.join(fit)}."
    return f"Of the {len(names)} file(s) in models/clip_vision none fits; put that model there."


def width_of(path: str | None, sees: Sees) -> int | None:
    """How wide what a file's model sees is; None where it cannot be told."""
    if path is None or Path(path).suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
            return next((file.get_slice(n).get_shape()[axis] for n, axis in SHAPES[sees] if n in there), None)
    except (SafetensorError, OSError):
        return None
