"""A node pack for test servers: a checkpoint of SD1.5's shape that is small enough for a test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
import host  # noqa: E402


class TinyCheckpoint:
    """-> MODEL, CLIP with random weights, the same ones every time."""

    RETURN_TYPES = ("MODEL", "CLIP")
    FUNCTION = "load"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def load(self) -> tuple[Any, Any]:
        return host.sd15(), host.sd15_clip()


NODE_CLASS_MAPPINGS = {"TinyCheckpoint": TinyCheckpoint}
