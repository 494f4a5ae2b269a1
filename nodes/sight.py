"""Seeing: from pictures of somebody to a feature, through whatever the adapter sees with."""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.model_management
import torch
from comfy.clip_vision import clip_preprocess

from ..moa_attention.image_prompt import ImagePromptAdapter, Sees
from ..moa_attention.reference import prepare_reference
from .clip_files import fitting
from .sockets import Adapter

CLIP_PICTURE = 224
"""Side of the square handed to the host's CLIP vision preprocessing."""
VERSIONS = {"2": 1.0, "1": 0.0}
"""Of FaceID Plus files, whose two versions have the same tensors: how much of the face's own tokens passes by."""


class Given(NamedTuple):
    """What a user connected."""

    images: torch.Tensor
    """(K,H,W,3)"""
    masks: torch.Tensor | None = None
    clip_vision: Any = None
    face: torch.Tensor | None = None
    """(K,512)"""
    version: str = "2"
    """Key of `VERSIONS`."""


def see(adapter: Adapter, given: Given) -> torch.Tensor:
    """Features of pictures, (K,F) on the CPU.

    Raises: ValueError when what the adapter sees through is not connected, or is another one.
    """
    module = adapter.patcher.model
    if isinstance(module, ImagePromptAdapter):
        return encode_image_prompt(adapter, given)
    if module.tail is not None:
        return encode_through_tail(adapter, given.clip_vision, given.images, given.masks)
    if module.encoder is not None:
        return encode_embedded(adapter, given.images, given.masks)
    return encode_clip(adapter, given.clip_vision, given.images, given.masks)


def encode_embedded(adapter: Adapter, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """(K,H,W,3) -> (K,F) by the encoder inside the adapter."""
    comfy.model_management.load_models_gpu([adapter.patcher])
    pictures = prepare_reference(images, masks, adapter.patcher.model.encoder.picture)
    return adapter.patcher.model.encoder(pictures.to(adapter.patcher.load_device)).float().cpu()


def encode_image_prompt(adapter: Adapter, given: Given) -> torch.Tensor:
    """-> (K,F), the image tokens that an imported IP-Adapter makes of pictures, or of face embeddings.

    Raises: ValueError when what it sees through is not connected, or of another width.
    """
    module: ImagePromptAdapter = adapter.patcher.model
    seen: dict[Sees, torch.Tensor] = {}
    if "face" in module.sees:
        seen["face"] = checked_face(adapter, given.face, module.sees["face"])
    if set(module.sees) != {"face"}:
        looked = look(adapter, given.clip_vision, given.images, given.masks)
        seen |= {"embedding": looked["image_embeds"], "patches": looked["penultimate_hidden_states"]}
    for name in set(module.sees) - {"face"}:
        check_width(adapter, name, seen[name].shape[-1], module.sees[name])
    if len({len(seen[name]) for name in module.sees}) > 1:
        raise ValueError(
            f"{len(seen['face'])} face embedding(s), but {len(given.images)} picture(s). Connect the images of "
            "MoAFaceEmbedding, too."
        )
    options = {"shortcut": VERSIONS[given.version]} if len(module.sees) > 1 else {}
    comfy.model_management.load_models_gpu([adapter.patcher])
    here: dict[Sees, torch.Tensor] = {name: seen[name].to(adapter.patcher.load_device).float() for name in module.sees}
    return module.look(here, **options).float().cpu()


def checked_face(adapter: Adapter, face: torch.Tensor | None, wanted: int) -> torch.Tensor:
    """Raises: ValueError when no face embedding is connected, or one of another width."""
    if face is None:
        raise ValueError(
            f"Adapter '{adapter.name}' sees through a face embedding, and none is connected. Connect MoAFaceEmbedding, or "
            "MoALoadFaceEmbedding, to 'face'."
        )
    check_width(adapter, "face", face.shape[-1], wanted)
    return face


def look(adapter: Adapter, clip_vision: Any, images: torch.Tensor, masks: torch.Tensor | None) -> Any:
    """What the connected CLIP vision model makes of pictures.

    Raises: ValueError when none is connected.
    """
    pictures = pictures_for(adapter, clip_vision, images, masks)
    return clip_vision.encode_image(pictures)


def pictures_for(adapter: Adapter, clip_vision: Any, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """Pictures made ready for the connected CLIP vision model: (K,H,W,3) -> (K,224,224,3).

    Raises: ValueError when none is connected.
    """
    if clip_vision is None:
        raise ValueError(
            f"Adapter '{adapter.name}' sees through the CLIP vision model '{adapter.patcher.model.config.image_encoder}', none "
            f"is connected. Connect a 'Load CLIP Vision' node. {fitting(*wanted_of(adapter))}"
        )
    return prepare_reference(images, masks, CLIP_PICTURE).movedim(1, -1)


def wanted_of(adapter: Adapter) -> tuple[Sees, int]:
    """What the adapter looks at of a CLIP vision model, and how wide that is."""
    module = adapter.patcher.model
    if isinstance(module, ImagePromptAdapter):
        name: Sees = "embedding" if "embedding" in module.sees else "patches"
        return name, module.sees[name]
    if module.tail is not None:
        return "patches", module.config.encoder_width
    return "embedding", module.config.image_width


def check_width(adapter: Adapter, sees: Sees, given: int, wanted: int) -> None:
    """Raises: ValueError when the image encoder is not the one the adapter was trained with."""
    if given == wanted:
        return
    encoder = adapter.patcher.model.config.image_encoder
    files = "" if sees == "face" else fitting(sees, wanted)
    raise ValueError(
        f"Adapter '{adapter.name}' needs features of '{encoder}', {wanted} wide; what is connected gives {given}. "
        f"Load '{encoder}' instead. {files}"
    )


def encode_through_tail(
    adapter: Adapter, clip_vision: Any, images: torch.Tensor, masks: torch.Tensor | None
) -> torch.Tensor:
    """(K,H,W,3) -> (K,F): the connected CLIP vision model up to its last blocks, then the adapter's own ones.

    Raises: ValueError when no model, or one of other widths, is connected.
    """
    module = adapter.patcher.model
    pictures = pictures_for(adapter, clip_vision, images, masks).to(clip_vision.load_device)
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    pixels = clip_preprocess(pictures, clip_vision.image_size, clip_vision.image_mean, clip_vision.image_std).float()
    before = -1 - module.config.encoder_tail  # -1 is the state after the last block
    _, hidden, embedding, *_ = clip_vision.model(pixel_values=pixels, intermediate_output=before)
    check_width(adapter, "embedding", embedding.shape[-1], module.config.image_width)
    check_width(adapter, "patches", hidden.shape[-1], module.config.encoder_width)
    comfy.model_management.load_models_gpu([adapter.patcher])
    return module.tail(hidden.to(adapter.patcher.load_device).float()).float().cpu()


def encode_clip(adapter: Adapter, clip_vision: Any, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """(K,H,W,3) -> (K,F), the projected embedding of the CLIP vision model the adapter asks for.

    Raises: ValueError when no model, or one of another width, is connected.
    """
    features = look(adapter, clip_vision, images, masks)["image_embeds"].float().cpu()
    check_width(adapter, "embedding", features.shape[-1], adapter.patcher.model.config.image_width)
    return features
