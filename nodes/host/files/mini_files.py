"""The files of MoA Mini, checked by names and shapes, as the host's MODEL, CLIP and VAE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch

from ....moa_attention.formats.errors import StoredFileError, malformed
from ....moa_attention.formats.plan import check_fit
from ....moa_attention.formats.tensors import StoredFile, open_stored
from ..model.mini import HEAD, TEXT_CONFIG, UNET_CONFIG, Mini, build_autoencoder, build_text_model
from ..model.patch import host_patcher

VOCABULARY = 49408
TOKEN_TABLE = "clip_l.transformer.text_model.embeddings.token_embedding.weight"
TOKEN_IDS = "token_ids"
FIRST_LAYER = "input_blocks.0.0.weight"
WIDEST = 256
"""Channels of the widest U-Net that is read."""


def unet_config(stored: StoredFile) -> dict[str, object]:
    """`UNET_CONFIG` at the width of a file's U-Net: the first convolution has `model_channels` outputs.

    Raises: StoredFileError when MoA Mini has no U-Net of that width.
    """
    width = stored.shape(FIRST_LAYER, 4)[0]
    if width % HEAD or width > WIDEST:
        raise StoredFileError(
            stored.path, f"is not a U-Net of MoA Mini: it is {width} wide, not a multiple of {HEAD} up to {WIDEST}."
        )
    return {**UNET_CONFIG, "model_channels": width}


def grow_vocabulary(path: Path, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The word table that the host's tokenizer indexes.

    The file has one row for each of `token_ids` `[n]` and, after them, one for all other words.

    Raises: StoredFileError when an id is beyond the vocabulary.
    """
    full = dict(state_dict)
    token_ids, rows = full.pop(TOKEN_IDS).long(), full[TOKEN_TABLE]
    if int(token_ids.min()) < 0 or int(token_ids.max()) >= VOCABULARY:
        raise StoredFileError(path, f"has token ids outside 0 to {VOCABULARY - 1}. Download it again.")
    table = rows[-1:].repeat(VOCABULARY, 1)
    table[token_ids] = rows[:-1]
    full[TOKEN_TABLE] = table
    return full


def read_all(stored: StoredFile, wanted: Mapping[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """The tensors of a file that has the names and shapes of a module's state.

    Raises: StoredFileError as `check_fit`.
    """
    check_fit(stored, wanted, {name: name for name in stored.tensors}, kind)
    return stored.read(stored.tensors.keys())


def colours(stored: StoredFile, entry: str) -> Any:
    """A header entry of numbers for the host's previews.

    Raises: StoredFileError when there are others than rows of red, green and blue.
    """
    found = stored.parse(entry)
    try:
        right = torch.tensor(found, dtype=torch.float32).shape[-1] in (0, 3)
    except (TypeError, ValueError, RuntimeError, IndexError):
        right = False
    if not right:
        raise malformed(stored.path, f"'{entry}' must be rows of three numbers")
    return found


def load_unet(path: Path, disable_dynamic: bool = False) -> Any:
    """The MODEL of a file.

    Raises: StoredFileError when it is missing, damaged, or no U-Net of MoA Mini.
    """
    stored = open_stored(path)
    device, supported = comfy.model_management.get_torch_device(), Mini.supported_inference_dtypes
    size = comfy.utils.calculate_parameters(stored.tensors)
    dtype = comfy.model_management.unet_dtype(model_params=size, supported_dtypes=supported)
    config = Mini(unet_config(stored))
    config.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device, supported))
    config.latent_format.latent_rgb_factors = colours(stored, "latent_rgb_factors")
    config.latent_format.latent_rgb_factors_bias = colours(stored, "latent_rgb_factors_bias")
    model = config.get_model({}, device=comfy.model_management.unet_inital_load_device(size, dtype))
    weights = read_all(stored, model.diffusion_model.state_dict(), "a U-Net of MoA Mini")
    patcher = host_patcher(model, disable_dynamic)
    model.load_model_weights(weights)
    patcher.cached_patcher_init = (load_unet, (path,))
    return patcher


def load_text_encoder(path: Path) -> comfy.sd.CLIP:
    """The CLIP of a file.

    Raises: StoredFileError when it is missing, damaged, or no text encoder of MoA Mini.
    """
    weights = grow_vocabulary(path, read_text_weights(open_stored(path)))
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    size = comfy.utils.calculate_parameters(weights)
    clip = comfy.sd.CLIP(target, parameters=size, model_options={"clip_l_model_config": TEXT_CONFIG})
    clip.load_sd(weights, full_model=True)
    return clip


def read_text_weights(stored: StoredFile) -> dict[str, torch.Tensor]:
    """The tensors of a text encoder's file, with a row of the word table for each of its token ids and one for all other words.

    Raises: StoredFileError as `check_fit`.
    """
    wanted = dict(build_text_model().state_dict())
    (words,), width = stored.shape(TOKEN_IDS, 1), wanted[TOKEN_TABLE].shape[1]
    table, ids = (
        torch.empty(*s, dtype=d, device="meta")
        for s, d in (((words + 1, width), torch.float32), ((words,), torch.int32))
    )
    return read_all(stored, wanted | {TOKEN_TABLE: table, TOKEN_IDS: ids}, "a text encoder of MoA Mini")


def load_autoencoder(path: Path) -> comfy.sd.VAE:
    """The VAE of a file.

    Raises: StoredFileError when it is missing, damaged, or no autoencoder of MoA Mini.
    """
    return comfy.sd.VAE(sd=read_all(open_stored(path), build_autoencoder().state_dict(), "an autoencoder of MoA Mini"))


def load_mini(folder: Path) -> tuple[Any, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL, CLIP and VAE from `unet.safetensors`, `clip.safetensors` and `vae.safetensors` in `folder`.

    Raises: StoredFileError naming the file that cannot be used.
    """
    return (
        load_unet(folder / "unet.safetensors"),
        load_text_encoder(folder / "clip.safetensors"),
        load_autoencoder(folder / "vae.safetensors"),
    )
