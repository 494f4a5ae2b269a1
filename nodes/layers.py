"""The base model's attention layers: found by walking its U-Net, compared with what an adapter was made for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple, cast

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.config import LayerSpec, MoAConfig


class AttentionLayer(NamedTuple):
    """One attention layer of the host's U-Net."""

    spec: LayerSpec
    path: str
    """Where it lies in the U-Net: a submodule path."""


def unet_of(base: nn.Module) -> UNetModel:
    """The U-Net of a host model (`ModelPatcher.model`).

    Raises: ValueError for any other architecture.
    """
    unet = getattr(base, "diffusion_model", None)
    if not isinstance(unet, UNetModel):
        raise ValueError(
            f"MoA needs a Stable Diffusion U-Net (SD1.5, SDXL or MoA Mini), this model is a {type(base).__name__} "
            f"({type(unet).__name__}). Transformer models such as Flux, SD3 or Qwen have no layers MoA could attach to."
        )
    return unet


def transformer_blocks(unet: UNetModel) -> Iterator[tuple[str, str, nn.Module]]:
    """(name, submodule path, block) in execution order; nothing about any model family is written down here."""
    stages = [
        ("input", i, f"input_blocks.{i}", block) for i, block in enumerate(cast("nn.ModuleList", unet.input_blocks))
    ]
    if unet.middle_block is not None:
        stages.append(("middle", 0, "middle_block", unet.middle_block))
    stages += [("output", i, f"output_blocks.{i}", block) for i, block in enumerate(unet.output_blocks)]
    for stage, number, path, layers in stages:
        for i, layer in enumerate(cast("nn.Sequential", layers)):
            if isinstance(layer, SpatialTransformer):
                for j, block in enumerate(layer.transformer_blocks):
                    yield f"{stage}_{number}_{j}", f"{path}.{i}.transformer_blocks.{j}", block


def attention_layers(unet: UNetModel) -> Iterator[AttentionLayer]:
    """Every self- and cross-attention of the U-Net, named by its place."""
    outermost = None
    for depth, (name, path, block) in enumerate(transformer_blocks(unet)):
        for which in ("attn1", "attn2"):
            attention = getattr(block, which)
            hidden, context = attention.to_q.in_features, attention.to_k.in_features
            outermost = outermost or hidden
            # The router loss leaves out the outermost stage, known by its width (paper: first 2 and last 3 blocks of SD1.5).
            spec = LayerSpec(f"{name}_{which}", depth, hidden, context, attention.heads, hidden != outermost)
            yield AttentionLayer(spec, f"{path}.{which}")


def layer_paths(base: nn.Module, config: MoAConfig) -> dict[str, str]:
    """Where in this model's U-Net its attention layers lie: submodule paths by layer name. An adapter may leave some alone.

    Raises: ValueError saying what the adapter was made for and what the model has.
    """
    found = {layer.spec.name: layer for layer in attention_layers(unet_of(base))}

    def fits(spec: LayerSpec) -> bool:
        other = found[spec.name].spec if spec.name in found else None
        return other is not None and replace(other, supervised=spec.supervised) == spec

    wrong = [spec.name for spec in config.layers if not fits(spec)]
    if wrong or config.depth != 1 + max((layer.spec.depth for layer in found.values()), default=-1):
        width = next((layer.spec.context for layer in found.values() if layer.spec.is_cross), "none")
        raise ValueError(
            f"This adapter was trained for '{config.base}': {len(config.layers)} attention layers, text width "
            f"{config.text_width}. The model ({type(base).__name__}) has {len(found)} attention layers, text width {width}"
            + (f"; the first that differs is {wrong[0]}" if wrong else "")
            + ". Load a checkpoint of the adapter's family, or an adapter for this one."
        )
    return {name: layer.path for name, layer in found.items()}


BASES = {"SD15": "sd15", "SDXL": "sdxl", "Mini": "moa-mini"}
"""Names of the architectures by the host's classes for them."""


def fresh_adapter(
    model: Any, image_encoder: str, image_width: int, *, operations: ModuleType | type = nn, **options: Any
) -> MoAAdapter:
    """An untrained adapter for a host model: experts as the prior, routers and fusion neutral, in float32.

    Args: options: `rank`, `router`, `output_projection` of `MoAConfig`.
    """
    unet, base = unet_of(model.model), type(model.model.model_config).__name__
    layers = list(attention_layers(unet))
    specs = [layer.spec for layer in layers]
    if base == "Mini":  # with latents of 16 × 16 the outermost stage is no low-level one: all count in the router loss
        specs = [replace(spec, supervised=True) for spec in specs]
    width = next(spec.context for spec in specs if spec.is_cross)
    config = MoAConfig(BASES.get(base, base.lower()), tuple(specs), width, image_encoder, image_width, **options)
    adapter = MoAAdapter(config, operations=operations)
    adapter.init_from({layer.spec.name: unet.get_submodule(layer.path) for layer in layers})
    return adapter
