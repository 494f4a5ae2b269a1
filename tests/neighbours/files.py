"""Files of random weights that nodes load: a LoRA of U-Net and text encoder, and a hypernetwork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import torch
from safetensors.torch import save_file
from scene import Scene
from torch import Tensor

ATTENTION = (".to_q.weight", ".to_v.weight", ".self_attn.q_proj.weight", ".self_attn.v_proj.weight")
"""Endings of what the LoRA changes."""


def path_of(kind: str, name: str) -> Path:
    """Where the host finds a file of a kind."""
    folder = Path(folder_paths.get_folder_paths(kind)[0])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def lora_file(scene: Scene) -> Path:
    """A LoRA of rank 2 on queries and values, written once."""
    path = path_of("loras", f"{scene.family.name}.safetensors")
    if not path.exists():
        generator = torch.Generator().manual_seed(4)
        unet = {f"diffusion_model.{k}": w for k, w in scene.family.model.model.diffusion_model.state_dict().items()}
        text = {f"text_encoders.{k}": w for k, w in scene.clip.cond_stage_model.state_dict().items()}
        tensors: dict[str, Tensor] = {}
        for name, weight in {**unet, **text}.items():
            if name.endswith(ATTENTION):
                stem, (rows, columns) = name.removesuffix(".weight"), weight.shape
                tensors[f"{stem}.lora_up.weight"] = torch.randn(rows, 2, generator=generator) / 2
                tensors[f"{stem}.lora_down.weight"] = torch.randn(2, columns, generator=generator) / columns**0.5
        save_file(tensors, path)
    return path


def lora(scene: Scene) -> dict[str, Any]:
    """The input of the nodes that choose a LoRA."""
    return {"lora_name": lora_file(scene).name}


def loaded_lora(scene: Scene) -> dict[str, Any]:
    """The input of the node that takes one from training."""
    return {"lora": comfy.utils.load_torch_file(str(lora_file(scene)))}


def hypernetwork(scene: Scene) -> dict[str, Any]:
    """One linear layer each for keys and values, of contexts of the text's width."""
    width, path = scene.family.context, path_of("hypernetworks", f"{scene.family.name}.pt")
    generator = torch.Generator().manual_seed(5)
    layer = {
        "linear.0.weight": torch.randn(width, width, generator=generator) / width**0.5,
        "linear.0.bias": torch.zeros(width),
    }
    torch.save({width: [layer, layer]}, path)
    return {"hypernetwork_name": path.name}
