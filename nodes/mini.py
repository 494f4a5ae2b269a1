"""MoA Mini: a small model of our own, built from the host's own classes.

The host recognises checkpoints by the widths of famous models, so a small one cannot pass its stock loaders. Its
classes take any width, though: `load_mini` gives the same three objects that CheckpointLoaderSimple would, and every
node of the host works with them.
"""

import json
from pathlib import Path
from typing import Any, cast

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.taesd.taesd import TAESD

from .patch import host_patcher

VOCABULARY = 49408
TOKEN_TABLE = "clip_l.transformer.text_model.embeddings.token_embedding.weight"
TOKEN_IDS = "token_ids"

TEXT_CONFIG = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "projection_dim": 128,
}
UNET_CONFIG = {
    "image_size": 16,
    "in_channels": 32,
    "out_channels": 32,
    "model_channels": 64,
    "channel_mult": [1, 2, 2],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [1, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1],
    "context_dim": 128,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}


class MiniLatent(comfy.latent_formats.LatentFormat):
    """32 channels at an eighth of the picture: principal components of 8 x 8 patches.

    The U-Net sees them with unit variance; the autoencoder's side is smaller, because it clamps softly at 3.
    """

    latent_channels = 32
    scale_factor = 2.5


class Mini(comfy.supported_models_base.BASE):
    """What the host must know of the U-Net: v-prediction on `MiniLatent`, attention heads 32 wide."""

    unet_config = UNET_CONFIG
    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}
    latent_format = MiniLatent
    custom_operations: type | None = None

    def model_type(self, state_dict: dict[str, torch.Tensor], prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self) -> bool:
        """More than four input channels are not an inpainting model's here."""
        return False


def build_unet(state_dict: dict[str, torch.Tensor], operations: type | None = None) -> comfy.model_base.BaseModel:
    """The host's `BaseModel` around a MoA Mini U-Net in fp32, unloaded. `operations` replaces the host's choice."""
    config = Mini(UNET_CONFIG)
    config.set_inference_dtype(torch.float32, None)
    config.custom_operations = operations
    return config.get_model(state_dict)


def build_text_model(operations: type | None = None) -> comfy.sd1_clip.SD1ClipModel:
    """The host's SD1 text encoder at MoA Mini's width, with whatever is in memory for weights."""
    options: dict[str, object] = {"clip_l_model_config": TEXT_CONFIG}
    if operations is not None:
        options["custom_operations"] = operations
    return comfy.sd1_clip.SD1ClipModel(device="cpu", dtype=torch.float32, model_options=options)


def build_autoencoder() -> TAESD:
    """The host's tiny autoencoder with 32 latent channels, with whatever is in memory for weights.

    It has no normalisation layers, which at this width would wash out the flat colours of drawings.
    """
    return TAESD(latent_channels=MiniLatent.latent_channels)


def grow_vocabulary(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The word table that the host's tokenizer indexes.

    The file has one row for each of `token_ids` `[n]` and, after them, one for all other words.
    """
    full = dict(state_dict)
    token_ids, rows = full.pop(TOKEN_IDS).long(), full[TOKEN_TABLE]
    table = rows[-1:].repeat(VOCABULARY, 1)
    table[token_ids] = rows[:-1]
    full[TOKEN_TABLE] = table
    return full


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file."""
    weights, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    return cast("dict[str, torch.Tensor]", weights), cast("dict[str, str]", metadata)


def _load_model(path: Path, disable_dynamic: bool = False) -> Any:
    weights, metadata = _read(path)
    management = comfy.model_management
    device = management.get_torch_device()
    size = comfy.utils.calculate_parameters(weights)
    dtype = management.unet_dtype(model_params=size, supported_dtypes=Mini.supported_inference_dtypes)
    config = Mini(UNET_CONFIG)
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, Mini.supported_inference_dtypes))
    config.latent_format.latent_rgb_factors = json.loads(metadata["latent_rgb_factors"])
    config.latent_format.latent_rgb_factors_bias = json.loads(metadata["latent_rgb_factors_bias"])
    model = config.get_model(weights, device=management.unet_inital_load_device(size, dtype))
    patcher = host_patcher(model, disable_dynamic)
    model.load_model_weights(weights)
    patcher.cached_patcher_init = (_load_model, (path,))
    return patcher


def _load_clip(path: Path) -> comfy.sd.CLIP:
    weights = grow_vocabulary(_read(path)[0])
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    size = comfy.utils.calculate_parameters(weights)
    clip = comfy.sd.CLIP(target, parameters=size, model_options={"clip_l_model_config": TEXT_CONFIG})
    clip.load_sd(weights, full_model=True)
    return clip


def load_mini(folder: Path) -> tuple[Any, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL, CLIP and VAE from `unet.safetensors`, `clip.safetensors` and `vae.safetensors` in `folder`."""
    return (
        _load_model(folder / "unet.safetensors"),
        _load_clip(folder / "clip.safetensors"),
        comfy.sd.VAE(sd=_read(folder / "vae.safetensors")[0]),
    )
