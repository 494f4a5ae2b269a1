"""SubjectEncode: pictures of somebody -> a subject bound to a word."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

from ..moa_attention.image_prompt import ImagePromptAdapter
from ..moa_attention.reference import prepare_reference
from .load import CATEGORY
from .sockets import Adapter, AdapterSocket, Subject, SubjectSocket

CLIP_PICTURE = 224
"""Side of the square handed to the host's CLIP vision preprocessing."""


def encode_embedded(adapter: Adapter, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """(K,H,W,3) -> (K,F) by the encoder inside the adapter."""
    comfy.model_management.load_models_gpu([adapter.patcher])
    pictures = prepare_reference(images, masks, adapter.patcher.model.encoder.picture)
    return adapter.patcher.model.encoder(pictures.to(adapter.patcher.load_device)).float().cpu()


def encode_image_prompt(
    adapter: Adapter, clip_vision: Any, images: torch.Tensor, masks: torch.Tensor | None
) -> torch.Tensor:
    """(K,H,W,3) -> (K,F), the image tokens that an imported IP-Adapter makes of pictures.

    Raises: ValueError when no CLIP vision model, or one of another width, is connected.
    """
    module = adapter.patcher.model
    seen = look(adapter, clip_vision, images, masks)
    seen = seen["image_embeds"] if module.sees == "embedding" else seen["penultimate_hidden_states"]
    check_width(adapter, seen.shape[-1], module.width)
    comfy.model_management.load_models_gpu([adapter.patcher])
    return module.look(seen.to(adapter.patcher.load_device).float()).float().cpu()


def look(adapter: Adapter, clip_vision: Any, images: torch.Tensor, masks: torch.Tensor | None) -> Any:
    """What the connected CLIP vision model makes of pictures.

    Raises: ValueError when none is connected.
    """
    if clip_vision is None:
        raise ValueError(
            f"Adapter '{adapter.name}' sees through the CLIP vision model '{adapter.patcher.model.config.image_encoder}', none "
            "is connected. Put that model into models/clip_vision and connect a 'Load CLIP Vision' node."
        )
    return clip_vision.encode_image(prepare_reference(images, masks, CLIP_PICTURE).movedim(1, -1))


def check_width(adapter: Adapter, given: int, wanted: int) -> None:
    """Raises: ValueError when the CLIP vision model is not the one the adapter was trained with."""
    if given != wanted:
        encoder = adapter.patcher.model.config.image_encoder
        raise ValueError(
            f"Adapter '{adapter.name}' needs features of '{encoder}', {wanted} wide; the connected CLIP vision model gives "
            f"{given}. Load '{encoder}' instead."
        )


def encode_clip(adapter: Adapter, clip_vision: Any, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """(K,H,W,3) -> (K,F), the projected embedding of the CLIP vision model the adapter asks for.

    Raises: ValueError when no model, or one of another width, is connected.
    """
    features = look(adapter, clip_vision, images, masks)["image_embeds"].float().cpu()
    check_width(adapter, features.shape[-1], adapter.patcher.model.config.image_width)
    return features


class SubjectEncode(io.ComfyNode):
    """Pictures of one subject and its word -> MOA_SUBJECT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SubjectEncode",
            display_name="Encode Subject (MoA)",
            category=CATEGORY,
            description="Looks at one or more pictures of one person or thing and binds it to a word of the prompt.",
            search_aliases=["moa subject", "face encode", "reference image", "ip adapter encode", "identity", "person"],
            inputs=[
                AdapterSocket.Input("adapter", tooltip="The adapter that is also applied to the model."),
                io.Image.Input(
                    "images",
                    tooltip="Pictures of one subject; of a batch the average is taken. A portrait crop works best.",
                ),
                io.String.Input(
                    "word",
                    default="man",
                    tooltip="The word of the prompt that this subject becomes, for example man, woman, dog.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the subject is. The picture is cropped to it and the rest is greyed out.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Only for adapters that ask for one; the error says which model.",
                ),
                io.Int.Input(
                    "occurrence",
                    default=1,
                    min=1,
                    max=20,
                    advanced=True,
                    tooltip="Which occurrence of the word, counted from 1: 'a man and a man' has two.",
                ),
            ],
            outputs=[SubjectSocket.Output(display_name="subject", tooltip="For MoATextEncode.")],
        )

    @classmethod
    def execute(
        cls,
        adapter: Adapter,
        images: torch.Tensor,
        word: str,
        mask: torch.Tensor | None = None,
        clip_vision: Any = None,
        occurrence: int = 1,
    ) -> io.NodeOutput:
        if not word.strip():
            raise ValueError("SubjectEncode needs a word of the prompt to bind the subject to; 'word' is empty.")
        module = adapter.patcher.model
        if not len(images):  # MoASubjectCrop found nobody
            return io.NodeOutput(Subject(word.strip(), occurrence, torch.zeros(0, 0), adapter.encoder))
        if isinstance(module, ImagePromptAdapter):
            features = encode_image_prompt(adapter, clip_vision, images, mask)
        elif module.encoder is not None:
            features = encode_embedded(adapter, images, mask)
        else:
            features = encode_clip(adapter, clip_vision, images, mask)
        return io.NodeOutput(Subject(word.strip(), occurrence, features.mean(dim=0, keepdim=True), adapter.encoder))
