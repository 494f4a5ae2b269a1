"""The base models that are measured, each with an adapter: the host's own U-Nets at their real widths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.ops
import torch
from torch import nn

from ..nodes.layers import fresh_adapter
from ..nodes.patch import host_patcher

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "comfy"))

ENCODER = "bench"
FEATURE = 768
"""Width of a subject's image feature, CLIP ViT-L/14's."""


class Pair(NamedTuple):
    """A base model and an adapter made for it, as the host's patchers."""

    base: str
    """"sd15" or "sdxl"."""
    model: Any
    adapter: Any
    device: torch.device
    dtype: torch.dtype

    @property
    def where(self) -> str:
        """The device, for people."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def hollow(base: str, dtype: torch.dtype = torch.float16) -> Pair:
    """Weights that have shapes and no contents: it computes nothing, so that a call takes seconds and no memory."""
    import host

    meta = torch.device("meta")

    def patcher(module: nn.Module) -> comfy.model_patcher.ModelPatcher:
        return comfy.model_patcher.ModelPatcher(module, load_device=meta, offload_device=meta)

    model = patcher(host.build(*host.real_width(base), device="meta", dtype=dtype))
    with meta:
        adapter = fresh_adapter(model, ENCODER, FEATURE, operations=comfy.ops.manual_cast)
    return Pair(base, model, patcher(adapter.to(dtype).requires_grad_(False)), meta, dtype)


def filled(base: str, device: torch.device, dtype: torch.dtype) -> Pair:
    """Random weights, made one parameter at a time: SDXL in float32 is 10 GiB, its adapter 4 GiB, and nothing is held twice."""
    import host

    model = host.patcher(*host.real_width(base), dtype=dtype)
    adapter = fresh_adapter(model, ENCODER, FEATURE, operations=comfy.ops.manual_cast).to(dtype)
    host.randomise(adapter)
    return Pair(base, model, host_patcher(adapter.requires_grad_(False)), device, dtype)
