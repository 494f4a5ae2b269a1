"""The measured base models, each with an adapter: the host's own U-Nets at their real widths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_patcher
import torch
from torch import nn

from ..moa_attention.adapters.ip_adapter import ImagePromptAdapter
from ..moa_attention.method.spec import MoAConfig
from ..nodes.host.files.adapters import HOST
from ..nodes.host.model.layers import fresh_adapter
from ..nodes.host.model.patch import host_patcher
from ..nodes.host.model.unet import attention_layers, unet_of
from .ip_adapter import IMAGE_TOKENS

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "comfy"))

ENCODER = "bench"
FEATURE = 768
"""Width of a subject's image feature, that of CLIP ViT-L/14."""


class Pair(NamedTuple):
    """A base model and an adapter made for it, as the host's patchers."""

    base: str
    """"sd15" or "sdxl"."""
    model: Any
    adapter: Any
    device: torch.device
    dtype: torch.dtype

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def meta_pair(base: str, dtype: torch.dtype = torch.float16) -> Pair:
    """On PyTorch's `meta` device, with shapes and no contents: a call takes seconds and no memory."""
    import host

    meta = torch.device("meta")

    def patcher(module: nn.Module) -> comfy.model_patcher.ModelPatcher:
        return comfy.model_patcher.ModelPatcher(module, load_device=meta, offload_device=meta)

    model = patcher(host.build(*host.real_width(base), device="meta", dtype=dtype))
    with meta:
        adapter = fresh_adapter(model, ENCODER, FEATURE, factory=HOST)
    return Pair(base, model, patcher(adapter.to(dtype).requires_grad_(False)), meta, dtype)


def meta_image_pair(base: str, dtype: torch.dtype = torch.float16) -> Pair:
    """As `meta_pair`, with an image prompt adapter in place of ours."""
    made = meta_pair(base, dtype)
    specs = tuple(layer.spec for layer in attention_layers(unet_of(made.model.model)) if layer.spec.is_cross)
    text = specs[0].context
    config = MoAConfig(base, specs, text, ENCODER, IMAGE_TOKENS * text, router="none")
    with made.device:
        adapter = ImagePromptAdapter(config, nn.Identity(), {"patches": FEATURE}, HOST).to(dtype).requires_grad_(False)
    patcher = comfy.model_patcher.ModelPatcher(adapter, load_device=made.device, offload_device=made.device)
    return made._replace(adapter=patcher)


def random_pair(base: str, device: torch.device, dtype: torch.dtype) -> Pair:
    """Random weights, drawn parameter by parameter: SDXL in float32 is 10 GiB, its adapter 4 GiB, and no copy fits beside."""
    import host

    model = host.patcher(*host.real_width(base), dtype=dtype)
    adapter = fresh_adapter(model, ENCODER, FEATURE, factory=HOST).to(dtype)
    host.randomise(adapter)
    return Pair(base, model, host_patcher(adapter.requires_grad_(False)), device, dtype)
