"""A node pack for test servers: checkpoints of SD1.5's and SDXL's shape that are small enough for a test, and a CLIP
vision model and ControlNets."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "neighbours"))
import controls  # noqa: E402
import host  # noqa: E402


class TinyLoader:
    """Without inputs."""

    FUNCTION = "load"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


class TinyCheckpoint(TinyLoader):
    """-> MODEL, CLIP, VAE of SD1.5's shape with random weights, the same ones every time."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    def load(self) -> tuple[Any, Any, Any]:
        return host.sd15(), host.sd15_clip(), host.vae()


class TinyCheckpointXL(TinyCheckpoint):
    """Of SDXL's shape."""

    def load(self) -> tuple[Any, Any, Any]:
        return host.sdxl(), host.sdxl_clip(), host.vae()


class TinyVision(TinyLoader):
    """-> CLIP_VISION with random weights."""

    RETURN_TYPES = ("CLIP_VISION",)

    def load(self) -> tuple[Any]:
        return (host.clip_vision(host.VISION, host.VISION),)


class TinyControlNet(TinyLoader):
    """-> CONTROL_NET for SD1.5's shape with random weights."""

    FAMILY: Any = SimpleNamespace(name="sd15", context=host.SD15_CONTEXT, pooled=None)
    RETURN_TYPES = ("CONTROL_NET",)

    def load(self) -> tuple[Any]:
        return (controls.control_net(self.FAMILY),)


class TinyControlNetXL(TinyControlNet):
    """For SDXL's shape."""

    FAMILY = SimpleNamespace(name="sdxl", context=host.SDXL_CONTEXT, pooled=host.SDXL_G)


NODES = (TinyCheckpoint, TinyCheckpointXL, TinyVision, TinyControlNet, TinyControlNetXL)
NODE_CLASS_MAPPINGS = {each.__name__: each for each in NODES}
