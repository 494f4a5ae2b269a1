"""The LoRA in a FaceID file as patches of the base model's weights, as a LoRA loader makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

import comfy.lora
from torch import nn

from ....moa_attention.method.expert import MATRICES

Patches = Mapping[str, Any]
"""The host's patches by the names of weights."""


def lora_patches(layers: Mapping[str, nn.Module], paths: Mapping[str, str]) -> Patches:
    """Those of an adapter's layers, by name.

    Args: paths: submodule paths of the base model's layers by name.
    """
    lora, weights = {}, {}
    for name, layer in layers.items():
        differences = getattr(layer, "low_rank", None)
        for matrix in MATRICES if differences is not None else ():
            own = getattr(differences, matrix)
            # On the CPU: the host moves the adapter's own weights, but not those of patches.
            lora[f"{name}.{matrix}.lora_up.weight"] = own.up.weight.detach().cpu()
            lora[f"{name}.{matrix}.lora_down.weight"] = own.down.weight.detach().cpu()
            place = "to_out.0" if matrix == "to_out" else matrix
            weights[f"{name}.{matrix}"] = f"diffusion_model.{paths[name]}.{place}.weight"
    return comfy.lora.load_lora(lora, weights)


def exchange_patches(model: Any, earlier: Iterable[Patches], own: Patches, strength: float) -> None:
    """Put patches on a cloned ModelPatcher in the place of earlier ones.

    Without any, the host must find nothing changed: it would load the weights again.
    """
    for name, theirs in (entry for patches in earlier for entry in patches.items()):
        model.patches[name] = [each for each in model.patches.get(name, ()) if each[1] is not theirs]
        if not model.patches[name]:
            del model.patches[name]
        model.patches_uuid = uuid4()
    if own:
        model.add_patches(own, strength)
