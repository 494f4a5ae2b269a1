"""Base models and image prompts of random weights in the classes of other extensions."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import host
import subjects
import torch
from host_prompts import picture
from scene import NEGATIVE, TEXT, Inputs, Scene
from torch import Tensor


def encoded_anew(scene: Scene, inputs: Inputs, clip: Any) -> Inputs:
    """Both prompts with another text encoder."""
    subject = type(inputs.positive[0][0]) is not Tensor
    return replace(
        inputs, positive=scene.encode(TEXT, clip=clip, subject=subject), negative=scene.encode(NEGATIVE, clip=clip)
    )


def loaded_module(name: str) -> Any:
    """A module of the extension of this process; the host names them by their paths."""
    (module,) = (module for key, module in sys.modules.items() if key.endswith(f"/{name}"))
    return module


def layout_of(scene: Scene) -> dict[str, Any]:
    if scene.family.name == "sd15":
        return host.sd15_layout(32, host.SD15_CONTEXT)
    return host.sdxl_layout(32, host.SDXL_CONTEXT, host.SDXL_G, scene.depth)


def in_gguf(scene: Scene, inputs: Inputs) -> Inputs:
    """The base model with matrices in blocks of 8 bits, computed by the extension's own layers."""
    gguf = importlib.import_module("gguf")
    ops, nodes = loaded_module("ComfyUI-GGUF.ops"), loaded_module("ComfyUI-GGUF.nodes")
    config = type(scene.family.model.model.model_config)({**COMMON, **layout_of(scene)})
    config.custom_operations = ops.GGMLOps()
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "").eval().requires_grad_(False)
    weights: dict[str, Tensor] = {}
    for name, weight in scene.family.model.model.diffusion_model.state_dict().items():
        kind = (
            gguf.GGMLQuantizationType.Q8_0
            if weight.ndim == 2 and weight.shape[1] % 32 == 0
            else gguf.GGMLQuantizationType.F32
        )
        data = torch.from_numpy(gguf.quants.quantize(weight.float().numpy(), kind))
        weights[name] = ops.GGMLTensor(data, tensor_type=kind, tensor_shape=weight.shape)
    model.diffusion_model.load_state_dict(weights)
    device = comfy.model_management.get_torch_device()
    made = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)
    return replace(inputs, model=nodes.GGUFModelPatcher.clone(made))


COMMON = {
    "image_size": 32,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
}


def relit(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """Differences of a U-Net with eight channels, and the latents of the picture that is lit anew."""
    layout = {**layout_of(scene), "in_channels": 8}
    light = host.patcher(comfy.supported_models.SD15, layout, 7)
    with torch.no_grad():
        for weight in light.model.diffusion_model.parameters():
            weight.mul_(0.05)
    return {"ic_model": light, "c_concat": {"samples": scene.vae.encode(picture(inputs))}}


VISION = 32


def clip_vision() -> Any:
    """A CLIP vision model."""
    return host.clip_vision(VISION, VISION)


def ip_adapter(scene: Scene) -> dict[str, Any]:
    """An IP-Adapter with four tokens."""
    generator, width = torch.Generator().manual_seed(8), scene.family.context

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    found = subjects.attentions(scene.family.model)
    blocks = [
        m
        for stage in ("input", "output", "middle")
        for name, m in found.items()
        if name.startswith(stage) and name.endswith("attn2")
    ]
    project = {"proj.weight": random(4 * width, VISION), "proj.bias": torch.zeros(4 * width)}
    project |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    layers = {}
    for number, attention in enumerate(blocks):
        hidden: int = attention.get_parameter("to_k.weight").shape[0]
        for name in ("to_k_ip", "to_v_ip"):
            layers[f"{2 * number + 1}.{name}.weight"] = random(hidden, width)
    return {"image_proj": project, "ip_adapter": layers}
