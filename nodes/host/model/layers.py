"""The base model's attention layers compared with those that an adapter was made for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.method.factory import PLAIN, Factory
from ....moa_attention.method.spec import MoAConfig
from .attachment import Attachment
from .unet import UNetAttachment, unet_of

BASES = {"SD15": "sd15", "SDXL": "sdxl", "Mini": "moa-mini"}
"""Names of the architectures by the host's classes for them."""


def attachment_for(base: nn.Module) -> Attachment:
    """How MoA attaches to a host model (`ModelPatcher.model`).

    Raises: ValueError for architectures without an attachment.
    """
    unet_of(base)
    return UNetAttachment()


def layer_paths(base: nn.Module, config: MoAConfig) -> dict[str, str]:
    """Submodule paths of this model's attention layers by layer name. An adapter may leave some layers alone.

    Raises: ValueError stating what the adapter was made for and what the model has.
    """
    found = {layer.spec.name: layer for layer in attachment_for(base).layers(base)}

    def fits(spec: Any) -> bool:
        other = found[spec.name].spec if spec.name in found else None
        return other is not None and replace(other, supervised=spec.supervised) == spec

    wrong = [spec.name for spec in config.layers if not fits(spec)]
    if wrong or config.depth != 1 + max((layer.spec.depth for layer in found.values()), default=-1):
        width = next((layer.spec.context for layer in found.values() if layer.spec.is_cross), "none")
        raise ValueError(
            f"This adapter was trained for '{config.base}': {len(config.layers)} attention layers, text width "
            f"{config.text_width}. The model ({type(base).__name__}) has {len(found)} attention layers, text width {width}"
            + (f"; the first that differs is {wrong[0]}" if wrong else "")
            + ". Load a checkpoint of the adapter's family, or an adapter for this checkpoint."
        )
    return {name: layer.path for name, layer in found.items()}


def fresh_adapter(
    model: Any, image_encoder: str, image_width: int, *, factory: Factory = PLAIN, **options: Any
) -> MoAAdapter:
    """An untrained adapter for a host model: experts as the prior, routers and fusion neutral, in float32.

    Args: options: `rank`, `router`, `image_tokens`, `output_projection` of `MoAConfig`.
    """
    unet, base = unet_of(model.model), type(model.model.model_config).__name__
    layers = attachment_for(model.model).layers(model.model)
    specs = [layer.spec for layer in layers]
    if base == "Mini":  # with latents of 16 × 16 the outermost stage is no low-level one: all count in the router loss
        specs = [replace(spec, supervised=True) for spec in specs]
    width = next(spec.context for spec in specs if spec.is_cross)
    config = MoAConfig(BASES.get(base, base.lower()), tuple(specs), width, image_encoder, image_width, **options)
    adapter = MoAAdapter(config, factory)
    adapter.init_from({layer.spec.name: unet.get_submodule(layer.path) for layer in layers})
    return adapter
