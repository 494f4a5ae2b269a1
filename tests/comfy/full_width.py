"""Files of SD1.5, SDXL and CLIP ViT-L at their published sizes, with random weights or with none.

Names and shapes are those of the host's own classes. Weights are drawn tensor by tensor, so that a file of 7 GB needs no memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import comfy.clip_model
import comfy.clip_vision
import comfy.ops
import host
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.sd1_clip import SD1ClipModel
from comfy.sdxl_clip import SDXLClipModel
from comfyui_moa.recipes.adapter.cpu_memory import VAE_LAYOUT
from torch import Tensor

META = torch.device("meta")
DRAWN = 2**22
"""Random numbers of a file, which are repeated."""


def checkpoint(path: Path, base: str) -> Path:
    """A checkpoint of "sd15" or "sdxl" with U-Net, VAE and text encoders."""
    family, layout = host.real_width(base)
    config, unet = family(layout), host.build(family, layout, "meta")
    text = SD1ClipModel(device="meta", dtype=torch.float16) if base == "sd15" else SDXLClipModel(device="meta")
    with META:
        vae = AutoencoderKL(ddconfig=VAE_LAYOUT, embed_dim=4)
    tensors = {f"model.diffusion_model.{name}": weight for name, weight in unet.diffusion_model.state_dict().items()}
    tensors |= config.process_vae_state_dict_for_saving(dict(vae.state_dict()))
    tensors |= config.process_clip_state_dict_for_saving(dict(text.state_dict()))
    return write(path, tensors)


def hollow_checkpoint(path: Path, base: str) -> Path:
    """The U-Net's names and shapes and nothing else: gigabytes that take no room on the disk."""
    model = host.build(*host.real_width(base), "meta")
    weights = {f"model.diffusion_model.{name}": w for name, w in model.diffusion_model.state_dict().items()}
    with path.open("wb") as file:
        file.truncate(write_header(file, weights) + sum(2 * weight.numel() for weight in weights.values()))
    return path


def vit_l(path: Path) -> Path:
    """CLIP ViT-L/14, as `clip-vit-large-patch14`."""
    layout = json.loads(Path(comfy.clip_vision.__file__).with_name("clip_vision_config_vitl.json").read_text())
    with META:
        model = comfy.clip_model.CLIPVisionModelProjection(layout, torch.float16, "meta", comfy.ops.manual_cast)
    return write(path, model.state_dict())


def write_header(file: BinaryIO, tensors: Mapping[str, Tensor]) -> int:
    """The header of a safetensors file whose tensors are float16. Returns: its bytes."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return file.write(struct.pack("<Q", len(text)) + text)


def write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Matrices that keep the size of a signal, norms of 1, biases of 0.1 or less.

    Args: tensors: names and shapes.
    """
    drawn = torch.randn(DRAWN, generator=torch.Generator().manual_seed(0))
    with path.open("wb") as file:
        write_header(file, tensors)
        for name, tensor in tensors.items():
            count, matrix = tensor.numel(), tensor.ndim >= 2
            scale = 1 / math.sqrt(tensor[0].numel()) if matrix else 0.03
            values = (drawn[:count] * scale + float(not matrix and name.endswith("weight"))).half()
            for start in range(0, count, DRAWN):
                file.write(values[: count - start].numpy().tobytes())
    return path
