"""Small random models in the host's own classes, and the host's own sampler, as plain functions.

Shapes of Stable Diffusion 1.5 (16 attention blocks) and SDXL (70 blocks) at reduced width. Every weight is drawn from a
seeded generator, so two calls with the same arguments give equal models.
"""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import comfy.clip_vision
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import BASE, ClipTarget
from torch import Tensor, nn

SD15_CONTEXT = 64
SDXL_L, SDXL_G = 64, 96
SDXL_CONTEXT = SDXL_L + SDXL_G
SDXL_DEPTH = 10
"""Blocks of each of the deepest transformers of SDXL."""
VISION = 32
"""Width of the small CLIP vision model of test servers, of its patches and of its embedding."""
SDXL_ADM_SIZES = 6 * 256
"""SDXL's size conditioning: six numbers, each encoded in 256 channels."""

Conditioning = list[Any]
"""The host's CONDITIONING: pairs of a tensor and a dict."""


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Fill every parameter so that signals keep their size: no layer is zero, none explodes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(1 + 0.1 * noise)


def sd15_layout(channels: int, context: int, in_channels: int = 4) -> dict[str, Any]:
    """The SD1.5 U-Net's options. Real widths: `channels=320, context=768`."""
    return {
        "model_channels": channels,
        "context_dim": context,
        "in_channels": in_channels,
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "num_classes": None,
    }


def sd15(channels: int = 32, context: int = SD15_CONTEXT, seed: int = 0, in_channels: int = 4) -> Any:
    """A ModelPatcher around the SD1.5 U-Net."""
    return patcher(comfy.supported_models.SD15, sd15_layout(channels, context, in_channels), seed)


def sdxl_layout(channels: int, context: int, pooled: int, depth: int = SDXL_DEPTH) -> dict[str, Any]:
    """The SDXL U-Net's options; `pooled` is the width of the conditioning's pooled output. Real: 320, 2048, 1280, 10.

    Args: depth: blocks of each of the deepest transformers.
    """
    return {
        "model_channels": channels,
        "context_dim": context,
        "in_channels": 4,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, depth, depth],
        "transformer_depth_middle": depth,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, depth, depth, depth],
        "use_linear_in_transformer": True,
        "adm_in_channels": pooled + SDXL_ADM_SIZES,
        "num_classes": "sequential",
    }


def sdxl(
    channels: int = 32, context: int = SDXL_CONTEXT, pooled: int = SDXL_G, seed: int = 0, depth: int = SDXL_DEPTH
) -> Any:
    """A ModelPatcher around the SDXL U-Net."""
    return patcher(comfy.supported_models.SDXL, sdxl_layout(channels, context, pooled, depth), seed)


def real_width(base: str) -> tuple[type[BASE], dict[str, Any]]:
    """Family and layout of "sd15" or "sdxl" as published."""
    if base == "sd15":
        return comfy.supported_models.SD15, sd15_layout(channels=320, context=768)
    return comfy.supported_models.SDXL, sdxl_layout(channels=320, context=2048, pooled=1280)


def build(
    family: type[BASE],
    layout: dict[str, Any],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    compute: torch.dtype | None = None,
) -> comfy.model_base.BaseModel:
    """The host's model for a layout, with uninitialised weights; computed in another dtype where one is given."""
    common = {
        "image_size": 32,
        "out_channels": 4,
        "use_spatial_transformer": True,
        "legacy": False,
        "use_temporal_attention": False,
    }
    config = family({**common, **layout})
    config.set_inference_dtype(dtype, compute)
    return config.get_model({}, "", device=torch.device(device)).to(device).eval().requires_grad_(False)


def patcher(
    family: type[BASE],
    layout: dict[str, Any],
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    compute: torch.dtype | None = None,
) -> Any:
    """A ModelPatcher around a model with random weights; computed in another dtype where one is given."""

    def make(disable_dynamic: bool = False) -> Any:
        model = build(family, layout, dtype=dtype, compute=compute)
        randomise(model.diffusion_model, seed)
        kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
        load_device = comfy.model_management.get_torch_device()
        return kind(model, load_device=load_device, offload_device=comfy.model_management.unet_offload_device())

    made = make()
    made.cached_patcher_init = (make, ())
    return made


def sd15_clip(width: int = SD15_CONTEXT, seed: int = 0) -> comfy.sd.CLIP:
    """The host's SD1.5 text encoder: its real tokenizer, two narrow layers."""
    return _clip(ClipTarget(SD1Tokenizer, SD1ClipModel), {"clip_l_model_config": _text_layers(width, 2)}, seed)


def sdxl_clip(seed: int = 0) -> comfy.sd.CLIP:
    """The host's SDXL pair of text encoders, narrow. Three layers each: SDXL reads the last but one."""
    widths = {"clip_l_model_config": _text_layers(SDXL_L, 3), "clip_g_model_config": _text_layers(SDXL_G, 3)}
    return _clip(ClipTarget(SDXLTokenizer, SDXLClipModel), widths, seed)


def _text_layers(width: int, layers: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * width,
        "num_attention_heads": width // 32,
        "projection_dim": width,
    }


def _clip(target: ClipTarget, widths: dict[str, Any], seed: int) -> comfy.sd.CLIP:
    clip = comfy.sd.CLIP(target, model_options={**widths, "dtype": torch.float32})
    randomise(clip.cond_stage_model, seed)
    return clip


def clip_vision(hidden: int, projected: int, **other: Any) -> Any:
    """The host's CLIP vision model with random weights: two layers, 4 × 4 patches; `other` replaces entries of its config."""
    layout: dict[str, Any] = {"model_type": "clip_vision_model", "hidden_size": hidden, "num_hidden_layers": 2}
    layout |= {"num_attention_heads": 2, "intermediate_size": 2 * hidden, "hidden_act": "gelu", "image_size": 224}
    layout |= {"patch_size": 56, "num_channels": 3, "projection_dim": projected, "layer_norm_eps": 1e-5}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"  # hosts before 0.23 take no dict
        file.write_text(json.dumps({**layout, **other}), encoding="utf-8")
        vision = comfy.clip_vision.ClipVisionModel(str(file))
    randomise(vision.model)
    return vision


def vae() -> comfy.sd.VAE:
    """The host's small VAE for SD1.5's latents, with random weights: eight pixels for one of the latents."""
    model = comfy.taesd.taesd.TAESD()
    randomise(model)
    return comfy.sd.VAE(sd=model.state_dict())


def encode(clip: comfy.sd.CLIP, text: str) -> Conditioning:
    """What core's CLIPTextEncode returns."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def conditioning(
    width: int = SD15_CONTEXT, tokens: int = 77, batch: int = 1, pooled: int | None = None, seed: int = 0
) -> Conditioning:
    """A random CONDITIONING without a text encoder; for SDXL give `pooled=SDXL_G`."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, tokens, width, generator=generator)
    extras = {} if pooled is None else {"pooled_output": torch.randn(batch, pooled, generator=generator)}
    return [[context, extras]]


def empty_latent(height: int = 16, width: int = 16, batch: int = 1, channels: int = 4) -> dict[str, Tensor]:
    """A LATENT of zeros; height and width in latent pixels."""
    return {"samples": torch.zeros(batch, channels, height, width)}


def core_node(name: str, method: str, *args: Any) -> Any:
    """The first output of a node in the host's own nodes.py."""
    return getattr(getattr(importlib.import_module("nodes"), name)(), method)(*args)[0]


def sample(
    model: Any,
    positive: Conditioning,
    negative: Conditioning,
    latent: dict[str, Tensor] | None = None,
    *,
    steps: int = 2,
    cfg: float = 5.0,
    seed: int = 0,
    sampler: str = "euler",
    scheduler: str = "normal",
    denoise: float = 1.0,
) -> Tensor:
    """Run the function behind core's KSampler node; returns the samples (B, C, h, w)."""
    common_ksampler = importlib.import_module("nodes").common_ksampler  # the host's nodes.py, not our folder

    start = empty_latent() if latent is None else latent
    with torch.inference_mode():
        (result,) = common_ksampler(
            model, seed, steps, cfg, sampler, scheduler, positive, negative, start, denoise=denoise
        )
    return result["samples"]


def apply_model(model: Any, x: Tensor, sigma: float, context: Tensor, **options: Any) -> Tensor:
    """One call of the host's BaseModel.apply_model, without a sampler."""
    comfy.model_management.load_models_gpu([model])
    with torch.inference_mode():
        transformer_options = model.model_options.get("transformer_options", {}).copy()
        time = torch.full((x.shape[0],), sigma)
        return model.model.apply_model(x, time, c_crossattn=context, transformer_options=transformer_options, **options)
