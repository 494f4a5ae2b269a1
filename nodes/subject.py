"""SubjectEncode: pictures of somebody -> a subject bound to a word."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy.clip_vision import clip_preprocess
from comfy_api.latest import io

from ..moa_attention.image_prompt import ImagePromptAdapter, Sees
from ..moa_attention.reference import prepare_reference
from .load import CATEGORY
from .sockets import Adapter, AdapterSocket, FaceSocket, Subject, SubjectSocket

CLIP_PICTURE = 224
"""Side of the square handed to the host's CLIP vision preprocessing."""
VERSIONS = {"2": 1.0, "1": 0.0}
"""Of FaceID Plus files, whose two versions have the same tensors: how much of the face's own tokens passes by."""


def encode_embedded(adapter: Adapter, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """(K,H,W,3) -> (K,F) by the encoder inside the adapter."""
    comfy.model_management.load_models_gpu([adapter.patcher])
    pictures = prepare_reference(images, masks, adapter.patcher.model.encoder.picture)
    return adapter.patcher.model.encoder(pictures.to(adapter.patcher.load_device)).float().cpu()


def encode_image_prompt(
    adapter: Adapter,
    clip_vision: Any,
    images: torch.Tensor,
    masks: torch.Tensor | None,
    face: torch.Tensor | None,
    version: str,
) -> torch.Tensor:
    """(K,H,W,3) -> (K,F), the image tokens that an imported IP-Adapter makes of pictures, or of face embeddings (K,512).

    Raises: ValueError when what it sees through is not connected, or of another width.
    """
    module: ImagePromptAdapter = adapter.patcher.model
    comfy.model_management.load_models_gpu([adapter.patcher])
    given: dict[Sees, torch.Tensor] = {}
    if "face" in module.sees:
        given["face"] = checked_face(adapter, face, module.sees["face"])
    if set(module.sees) != {"face"}:
        seen = look(adapter, clip_vision, images, masks)
        given |= {"embedding": seen["image_embeds"], "patches": seen["penultimate_hidden_states"]}
    for name in set(module.sees) - {"face"}:
        check_width(adapter, given[name].shape[-1], module.sees[name])
    if len({len(given[name]) for name in module.sees}) > 1:
        raise ValueError(
            f"{len(given['face'])} face embedding(s), but {len(images)} picture(s). Connect the images of MoAFaceEmbedding, too."
        )
    options = {"shortcut": VERSIONS[version]} if len(module.sees) > 1 else {}
    here: dict[Sees, torch.Tensor] = {name: given[name].to(adapter.patcher.load_device).float() for name in module.sees}
    return module.look(here, **options).float().cpu()


def checked_face(adapter: Adapter, face: torch.Tensor | None, wanted: int) -> torch.Tensor:
    """Raises: ValueError when no face embedding is connected, or one of another width."""
    if face is None:
        raise ValueError(
            f"Adapter '{adapter.name}' sees through a face embedding, and none is connected. Connect MoAFaceEmbedding, or "
            "MoALoadFaceEmbedding, to 'face'."
        )
    check_width(adapter, face.shape[-1], wanted)
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
            "is connected. Put that model into models/clip_vision and connect a 'Load CLIP Vision' node."
        )
    return prepare_reference(images, masks, CLIP_PICTURE).movedim(1, -1)


def check_width(adapter: Adapter, given: int, wanted: int) -> None:
    """Raises: ValueError when the image encoder is not the one the adapter was trained with."""
    if given != wanted:
        encoder = adapter.patcher.model.config.image_encoder
        raise ValueError(
            f"Adapter '{adapter.name}' needs features of '{encoder}', {wanted} wide; what is connected gives {given}. "
            f"Load '{encoder}' instead."
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
    check_width(adapter, embedding.shape[-1], module.config.image_width)
    check_width(adapter, hidden.shape[-1], module.config.encoder_width)
    comfy.model_management.load_models_gpu([adapter.patcher])
    return module.tail(hidden.to(adapter.patcher.load_device).float()).float().cpu()


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
                FaceSocket.Input(
                    "face", optional=True, tooltip="Only for FaceID files: the same person's face embedding."
                ),
                io.Combo.Input(
                    "faceid_plus",
                    options=list(VERSIONS),
                    default="2",
                    optional=True,
                    advanced=True,
                    tooltip="Only for FaceID Plus files: which version the file is. SDXL has 2 only; of SD1.5 there are both, "
                    "and nothing in the file tells them apart.",
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
        face: torch.Tensor | None = None,
        faceid_plus: str = "2",
    ) -> io.NodeOutput:
        if not word.strip():
            raise ValueError("SubjectEncode needs a word of the prompt to bind the subject to; 'word' is empty.")
        module, tokens = adapter.patcher.model, 0
        if not len(images) or (face is not None and not len(face)):  # nobody was found
            return io.NodeOutput(Subject(word.strip(), occurrence, torch.zeros(0, 0), adapter.encoder))
        if isinstance(module, ImagePromptAdapter):
            features = encode_image_prompt(adapter, clip_vision, images, mask, face, faceid_plus)
            tokens = features.shape[-1] // module.config.text_width
        elif module.tail is not None:
            features = encode_through_tail(adapter, clip_vision, images, mask)
        elif module.encoder is not None:
            features = encode_embedded(adapter, images, mask)
        else:
            features = encode_clip(adapter, clip_vision, images, mask)
        return io.NodeOutput(
            Subject(word.strip(), occurrence, features.mean(dim=0, keepdim=True), adapter.encoder, tokens=tokens)
        )
