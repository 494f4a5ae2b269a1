"""A custom node with tiny models in SD1.5's shape, which ComfyUI's own loaders would not recognise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "comfy"))

import host  # noqa: E402

FEATURES = 24
"""Width of the image features."""


class TinyModels:
    """Random weights, the same in every process."""

    RETURN_TYPES = ("MODEL", "CLIP", "CLIP_VISION")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def load(self) -> tuple[Any, Any, Any]:
        return host.sd15(), host.sd15_clip(), host.clip_vision(32, FEATURES)


NODE_CLASS_MAPPINGS = {"TinyModels": TinyModels}
