"""From pictures of a subject to its feature: the inputs that an adapter requires, then the adapter's own encoding."""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.clip_vision import clip_preprocess
from torch import Tensor

from ....moa_attention.adapters.base import FACE_INPUTS, EncoderInput
from ....moa_attention.subjects.mixing import CombineMode, combine_inputs
from ....moa_attention.subjects.reference import centre_of, prepare_reference
from ...sockets import LoadedAdapter
from ..files.clip_files import fitting_files_hint

CLIP_PICTURE = 224
"""Side of the square handed to the host's CLIP vision preprocessing."""
CLIP_OUTPUTS: dict[EncoderInput, str] = {"embedding": "image_embeds", "patches": "penultimate_hidden_states"}
"""Inputs of adapters by the host's names for the outputs of a CLIP vision model."""
UNIT = 1e-3
"""By how much the length of a normalised face embedding may differ from 1, as half precision rounds it."""
PAD, CROP_CENTRE, CROP_FACE, TILES = "pad", "crop centre", "crop face", "tiles"
FITS = (PAD, CROP_CENTRE, CROP_FACE, TILES)
"""How a picture becomes a square: with grey at its sides, by its middle, by the face in it; or several squares."""
VERSIONS = {"2": 1.0, "1": 0.0}
"""Of FaceID Plus files, whose two versions have the same tensors: the weight of the face's own tokens."""


class Reference(NamedTuple):
    """What a user connected."""

    images: Tensor
    """(K,H,W,3)"""
    masks: Tensor | None = None
    """(K,h,w) or (1,h,w)"""
    clip_vision: Any = None
    face: Tensor | None = None
    """(K,512)"""
    version: str = "2"
    """Key of `VERSIONS`."""
    faceid_weight: float = 1.0
    """Of the picture beside the face, in version 2 of FaceID Plus files."""
    fit: str = PAD
    """How pictures become squares for a CLIP vision model, one of `FITS`."""
    before: CombineMode | None = None
    """How several pictures are combined before the adapter's projection; None: not there."""


def encode_reference(adapter: LoadedAdapter, reference: Reference) -> Tensor:
    """Features of pictures, (K,F) on the CPU.

    Raises: ValueError when an input that the adapter requires is not connected, or has another width.
    """
    module = adapter.patcher.model
    inputs = gather_inputs(adapter, reference)
    for name, wanted in module.requires.items():
        if name != "pixels":
            check_width(adapter, name, inputs[name].shape[-1], wanted)
    if len({len(inputs[name]) for name in module.requires}) > 1:
        raise ValueError(
            f"'Encode Subject (MoA)' received {len(inputs['face'])} face embedding(s), but {len(reference.images)} picture(s). "
            "Connect both outputs of 'Face Embedding (MoA)', 'face' and 'images'."
        )
    if reference.before is not None:
        inputs = {name: combine_inputs(found, reference.before) for name, found in inputs.items()}
    comfy.model_management.load_models_gpu([adapter.patcher])
    here: dict[EncoderInput, Tensor] = {n: inputs[n].to(adapter.patcher.load_device).float() for n in module.requires}
    return module.encode(here, **encode_options(adapter, reference)).float().cpu()


def encode_options(adapter: LoadedAdapter, reference: Reference) -> dict[str, float]:
    """The options of `Adapter.encode` that this adapter has."""
    second = VERSIONS[reference.version]
    given = {"shortcut": second, "attended": reference.faceid_weight if second else 1.0}
    return {name: value for name, value in given.items() if name in adapter.patcher.model.encode_options}


def encode_negative(adapter: LoadedAdapter, reference: Reference) -> Tensor | None:
    """What negative prompts get in place of these pictures, (1,F) on the CPU; None where nothing is published for the adapter.

    Raises: ValueError as `encode_reference`.
    """
    module, device = adapter.patcher.model, adapter.patcher.load_device
    if not module.feature_is_tokens:
        return None
    patches = None
    if "patches" in module.requires:
        black = torch.zeros(1, CLIP_PICTURE, CLIP_PICTURE, 3)
        patches = reference.clip_vision.encode_image(black)[CLIP_OUTPUTS["patches"]].to(device).float()
    comfy.model_management.load_models_gpu([adapter.patcher])
    return module.encode_negative(device, patches, **encode_options(adapter, reference)).float().cpu()


def check_features(word: str, adapter: LoadedAdapter, features: Tensor) -> None:
    """Raises: ValueError naming the pictures of a subject whose features, (K,F), hold NaN or infinity."""
    broken = [str(i) for i, feature in enumerate(features, start=1) if not feature.isfinite().all()]
    if broken:
        raise ValueError(
            f"'Encode Subject (MoA)' computed NaN or infinity for '{word}' from picture {', '.join(broken)} of {len(features)} "
            f"with adapter '{adapter.name}'. Check that picture, its mask and face embedding, and load the CLIP vision model "
            "in full precision if it overflows."
        )


def gather_inputs(adapter: LoadedAdapter, reference: Reference) -> dict[EncoderInput, Tensor]:
    """The inputs that the adapter requires, from what is connected.

    Raises: ValueError when something is not connected.
    """
    requires = adapter.patcher.model.requires
    inputs: dict[EncoderInput, Tensor] = {}
    if "pixels" in requires:
        inputs["pixels"] = prepare_reference(reference.images, reference.masks, requires["pixels"])
    inputs |= {name: face_embedding(adapter, reference.face, name) for name in FACE_INPUTS if name in requires}
    if "hidden" in requires:
        inputs |= clip_hidden(adapter, reference)
    elif requires.keys() & {"embedding", "patches"}:
        pictures = pictures_for(adapter, reference)
        output = reference.clip_vision.encode_image(pictures)
        inputs |= {name: output[key] for name, key in CLIP_OUTPUTS.items() if name in requires}
    return inputs


def clip_hidden(adapter: LoadedAdapter, reference: Reference) -> dict[EncoderInput, Tensor]:
    """The hidden state before the last blocks of the connected CLIP vision model, which the adapter brings itself.

    Raises: ValueError when no model is connected.
    """
    clip = reference.clip_vision
    pictures = pictures_for(adapter, reference).to(clip.load_device)
    comfy.model_management.load_model_gpu(clip.patcher)
    pixels = clip_preprocess(pictures, clip.image_size, clip.image_mean, clip.image_std).float()
    before = -1 - adapter.patcher.model.config.encoder_tail  # -1 is the state after the last block
    _, hidden, embedding, *_ = clip.model(pixel_values=pixels, intermediate_output=before)
    return {"hidden": hidden, "embedding": embedding}


def pictures_for(adapter: LoadedAdapter, reference: Reference) -> Tensor:
    """Pictures made ready for the connected CLIP vision model: (K,H,W,3) -> (K,224,224,3), or (K,H,W,3) of any size.

    Raises: ValueError when none is connected.
    """
    if reference.clip_vision is None:
        raise ValueError(
            f"Adapter '{adapter.name}' encodes pictures with the CLIP vision model "
            f"'{adapter.patcher.model.config.image_encoder}', and none is connected. Connect a 'Load CLIP Vision' node. "
            f"{fitting_files_hint(*clip_requirement(adapter))}"
        )
    if reference.fit == CROP_CENTRE and reference.masks is None:
        return reference.images[..., :3].float()  # the host's preprocessing cuts out the middle
    return prepare_reference(reference.images, reference.masks, CLIP_PICTURE).movedim(1, -1)


def clip_squares(images: Tensor, masks: Tensor | None, fit: str) -> Tensor:
    """Pictures (K,H,W,3) -> (K,224,224,3) as a CLIP vision model sees them, before its normalisation."""
    if fit != CROP_CENTRE or masks is not None:
        return prepare_reference(images, masks, CLIP_PICTURE).movedim(1, -1)
    pictures = images[..., :3].float().movedim(-1, 1)
    side, size = min(pictures.shape[-2:]), (CLIP_PICTURE, CLIP_PICTURE)
    square = centre_of(pictures, (side, side))
    return F.interpolate(square, size=size, mode="bicubic", antialias=True).movedim(1, -1)


def face_embedding(adapter: LoadedAdapter, face: Tensor | None, name: EncoderInput) -> Tensor:
    """A face embedding (K,512) as one of the inputs `FACE_INPUTS`.

    Raises: ValueError when none is connected, or its length is lost and needed.
    """
    if face is None:
        raise ValueError(
            f"Adapter '{adapter.name}' needs a face embedding, and none is connected. Connect 'Face Embedding (MoA)' or "
            "'Load Face Embedding (MoA)' to 'face'."
        )
    if name == "face":
        return torch.nn.functional.normalize(face.float(), dim=-1)
    if (face.float().norm(dim=-1) - 1).abs().max() < UNIT:
        raise ValueError(
            f"Adapter '{adapter.name}' needs a face embedding as the recogniser gives it, but the connected one is normalised to "
            "length 1. Connect 'Face Embedding (MoA)', or save InsightFace's 'embedding' instead of its 'normed_embedding'."
        )
    return face


def clip_requirement(adapter: LoadedAdapter) -> tuple[EncoderInput, int]:
    """The output of a CLIP vision model by which files that fit are found, and its width."""
    requires = adapter.patcher.model.requires
    name: EncoderInput = next(name for name in ("hidden", "embedding", "patches") if name in requires)
    return name, requires[name]


def check_width(adapter: LoadedAdapter, name: EncoderInput, given: int, wanted: int) -> None:
    """Raises: ValueError when the image encoder is not the one the adapter was trained with."""
    if given == wanted:
        return
    encoder = adapter.patcher.model.config.image_encoder
    files = "" if name in FACE_INPUTS else fitting_files_hint(name, wanted)
    raise ValueError(
        f"Adapter '{adapter.name}' needs features of '{encoder}', {wanted} wide, but the connected input gives {given}. "
        f"Use '{encoder}' instead. {files}"
    )
