"""Models from files, each once: nodes that load the same file share one copy while any of them is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import comfy.clip_vision

from .folders import file_version

T = TypeVar("T")
HELD: WeakValueDictionary[tuple[str | None, ...], object] = WeakValueDictionary()
"""By function, arguments and versions of the files; weak, so that nothing is kept for its own sake."""


def shared(load: Callable[..., T], *arguments: str | None, files: Iterable[Path]) -> T:
    """What `load` makes of its arguments, which its users do not change.

    Args: files: those that it reads; a changed file is loaded again.
    """
    key = (load.__name__, *arguments, *map(file_version, files))
    held = HELD.get(key)
    if held is None:
        HELD[key] = held = load(*arguments)
    return held  # pyright: ignore[reportReturnType]


def load_vision(path: str) -> comfy.clip_vision.ClipVisionModel:
    """A CLIP vision model.

    Raises: ValueError when the host does not know its architecture.
    """
    model = comfy.clip_vision.load(path)
    if model is None:
        raise ValueError(f"'{path}' is no CLIP vision model that ComfyUI knows. Download the model again.")
    return model
