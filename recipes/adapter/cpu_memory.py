"""What a run on a CPU holds beside the U-Net and a step: the process, the frozen encoders, the work of the VAE."""

from pathlib import Path

import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from safetensors import safe_open
from torch import nn

from ...moa_attention.training.footprint import Peak
from ...nodes.host.files.folders import WEIGHTS
from .settings import MINI, ModelSettings, Settings

PROCESS = int(0.35 * 2**30)
"""Bytes of Python, PyTorch and ComfyUI before a model is loaded, measured on Linux. Pages of files, which the system can
drop, are not counted."""
VIT_L = 304_000_000
"""Parameters of CLIP ViT-L/14, for a model whose file does not exist yet."""
UNET, VAE = "model.diffusion_model.", "first_stage_model."
VAE_LAYOUT = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
"""Of the VAE of SD1.5 and SDXL."""


def beside_the_base(models: ModelSettings) -> int:
    """Bytes of the process and the frozen encoders, which stay in memory: the VAE in 32 bits, the others in 16."""
    if models.checkpoint == MINI:
        files = WEIGHTS / "mini"
        return PROCESS + 2 * (files / "vae.safetensors").stat().st_size + (files / "clip.safetensors").stat().st_size
    with safe_open(models.checkpoint, framework="pt") as file:
        counts = {name: file.get_slice(name).get_shape() for name in file.keys() if not name.startswith(UNET)}  # noqa: SIM118
    numbers = {name: torch.Size(shape).numel() for name, shape in counts.items()}
    vae = sum(count for name, count in numbers.items() if name.startswith(VAE))
    return PROCESS + 4 * vae + 2 * (sum(numbers.values()) - vae) + 2 * vision_parameters(models.clip_vision)


def vision_parameters(path: str) -> int:
    """Of the CLIP vision model in a file; of ViT-L where there is no file yet."""
    if not Path(path).is_file():
        return VIT_L
    with safe_open(path, framework="pt") as file:
        return sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118


def vae_peak(settings: Settings) -> int:
    """Bytes that the VAE works with: it encodes every picture, and decodes the sheets. MoA Mini's takes too little to count."""
    if settings.models.checkpoint == MINI:
        return 0
    side, sheets, peak = settings.data.side, settings.validation, Peak()
    with torch.device("meta"), torch.no_grad():
        vae = AutoencoderKL(ddconfig=VAE_LAYOUT, embed_dim=4)
        for half in ("encoder", "decoder"):  # attention has the lowest resolution, far below the peak
            vae.get_submodule(f"{half}.mid").add_module("attn_1", nn.Identity())
        peak.known.update(weight.untyped_storage() for weight in vae.parameters())
        with peak:
            vae.encode(torch.empty(1, 3, side, side))
            if sheets.active and sheets.prompts:
                vae.decode(torch.empty(1, 4, side // 8, side // 8))
    return peak.most
