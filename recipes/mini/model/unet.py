"""The text encoder and the U-Net of MoA Mini while they are trained: fresh ones, and those of a file or a state."""

import json
from pathlib import Path

import comfy.ops
import comfy.sd
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import load_file
from torch import Tensor, nn

from ....nodes.host.files.mini_files import FIRST_LAYER, TOKEN_IDS
from ....nodes.host.model.mini import MiniLatent, build_unet
from ....nodes.host.model.unet import unet_of
from ..data.faces import WEIGHTS
from ..data.latents import preview_factors
from .session import DEVICE, export, initialise
from .text import new_text_model, text_weights

WIDTH = 64
"""Channels of the U-Net's first stage."""
WORD_IDS = "text.clip_l.transformer.text_model.embeddings.token_embedding.ids"


def _zero_outputs(unet: UNetModel) -> None:
    """Residual branches start as nothing, so that the untrained net is as shallow as it can be."""
    ends = [getattr(module, name, None) for module in unet.modules() for name in ("out_layers", "proj_out")]
    for end in (*ends, unet.out):
        last = end[-1] if isinstance(end, nn.Sequential) else end
        if last is not None:
            for parameter in last.parameters():
                nn.init.zeros_(parameter)


def new_model(ids: Tensor, width: int = WIDTH) -> tuple[nn.ModuleDict, Tensor]:
    """Fresh `unet` and `text`, and the schedule's cumulative signal share (alpha bar) `[1000]`.

    Args:
        ids: token ids `[n]` that get a row of the word table.
        width: channels of the U-Net's first stage.
    """
    operations = comfy.ops.disable_weight_init
    base = build_unet(width, operations)
    unet = unet_of(base)
    initialise(unet)
    _zero_outputs(unet)
    alpha_bar = 1 / (base.model_sampling.sigmas.float() ** 2 + 1)
    model = nn.ModuleDict({"unet": unet.requires_grad_(True), "text": new_text_model(ids, operations)})
    return model.to(DEVICE), alpha_bar.to(DEVICE)


def load_model(path: Path) -> tuple[nn.ModuleDict, Tensor]:
    """A trained model, at its own width, and alpha bar.

    Args: path: a folder with `unet.safetensors` and `clip.safetensors`, or a training state, of which the average is taken.
    """
    if path.is_dir():
        unet, text = load_file(path / "unet.safetensors"), load_file(path / "clip.safetensors")
        ids = text.pop(TOKEN_IDS).long()
        weights = {**{f"unet.{k}": v for k, v in unet.items()}, **{f"text.{k}": v for k, v in text.items()}}
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)["parts"]["average"]
        ids = weights[WORD_IDS]
    model, alpha_bar = new_model(ids, width=len(weights[f"unet.{FIRST_LAYER}"]))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    derived = {WORD_IDS, WORD_IDS.replace(".ids", ".rows")}  # `clip.safetensors` has the ids under a name of its own
    assert not unexpected and set(missing) <= derived, (missing, unexpected)
    return model, alpha_bar


def load_decoder() -> comfy.sd.VAE:
    """The host's VAE with the shipped autoencoder."""
    return comfy.sd.VAE(sd=load_file(WEIGHTS / "vae.safetensors"))


def decode_latents(vae: comfy.sd.VAE, latents: Tensor) -> Tensor:
    """Latents as the U-Net has them `[B, 32, h, w]` -> pictures `[B, 3, 8h, 8w]` in 0 to 1."""
    return vae.decode(latents / MiniLatent.scale_factor).movedim(-1, 1).float().cpu()


def steps_of(state: Path) -> int:
    """How many steps a training state has taken."""
    return torch.load(state, map_location="cpu", weights_only=True, mmap=True)["step"]


def export_model(model: nn.ModuleDict, folder: Path, steps: int) -> None:
    """Write `unet.safetensors` and `clip.safetensors`, float16; `steps` is how many were taken."""
    factors, bias = (json.dumps(x.double().numpy().round(4).tolist()) for x in preview_factors())
    preview = {"latent_rgb_factors": factors, "latent_rgb_factors_bias": bias}
    export(model["unet"].state_dict(), folder / "unet.safetensors", steps, **preview)
    export(text_weights(model["text"]), folder / "clip.safetensors", steps)
