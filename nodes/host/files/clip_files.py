"""The files of models/clip_vision that fit an adapter, found by the shapes in them without loading a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import folder_paths

from ....moa_attention.adapters.base import EncoderInput
from ....moa_attention.formats.errors import StoredFileError
from .adapters import open_file
from .listing import file_names

FOLDER = "clip_vision"
WIDTHS: Mapping[EncoderInput, tuple[tuple[str, int], ...]] = {
    "embedding": (("visual_projection.weight", 0), ("visual.proj", 1)),
    "patches": (("vision_model.post_layernorm.weight", 0), ("visual.ln_post.weight", 0)),
    "hidden": (("vision_model.post_layernorm.weight", 0), ("visual.ln_post.weight", 0)),
}
"""A tensor and the axis of it whose length is the width of an encoder input: names of transformers, then of OpenCLIP."""


def fitting_files_hint(encoder_input: EncoderInput, width: int) -> str:
    """A sentence for messages: the files that give an encoder input of that width, or that there is none."""
    names, fits = file_names(FOLDER), fitting_files(encoder_input, width)
    if fits:
        return f"Models in models/clip_vision that fit: {', '.join(fits)}."
    return f"No model in models/clip_vision fits ({len(names)} checked). Download that model and put it there."


def fitting_files(encoder_input: EncoderInput, width: int) -> list[str]:
    """The names of the files that give an encoder input of that width."""
    names = file_names(FOLDER)
    return [n for n in names if width_in_file(folder_paths.get_full_path(FOLDER, n), encoder_input) == width]


def width_in_file(path: str | None, encoder_input: EncoderInput) -> int | None:
    """The width of an encoder input by the shapes in a file; None where they do not show it."""
    if path is None:
        return None
    try:
        tensors = open_file(Path(path)).tensors
    except StoredFileError:
        return None
    shapes = ((tensors[name].shape, axis) for name, axis in WIDTHS[encoder_input] if name in tensors)
    return next((shape[axis] for shape, axis in shapes if len(shape) > axis), None)
