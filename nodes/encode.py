"""Encode Subject: pictures of a person or thing become a subject bound to a word."""

from __future__ import annotations

from typing import Any, cast

import torch
from comfy_api.latest import io

from ..moa_attention.subjects.masks import as_masks
from ..moa_attention.subjects.mixing import COMBINE_MODES, CombineMode
from ..moa_attention.subjects.noise import NOISE_KINDS, NoiseKind, add_noise
from ..moa_attention.subjects.pictures import as_pictures
from .host.pictures.boxes import find_candidates
from .host.pictures.crops import WHOLE, crop_pictures
from .host.pictures.subject_encoding import FRAMES, subject_in_tiles, subject_of
from .host.pictures.vision import CROP_CENTRE, CROP_FACE, FITS, PAD, TILES, VERSIONS, Reference, clip_squares
from .host.prompts.prompt_words import word_of_prompt
from .sockets import CATEGORY, AdapterSocket, FaceSocket, LoadedAdapter, Subject, SubjectSocket, word_input

TITLE = "Encode Subject (MoA)"
NO_NOISE, BLURRED = "none", ", blurred"
FACE_MARGIN = 0.6
"""Room around a face, as Crop Subject (MoA) has it by default."""


class SubjectEncode(io.ComfyNode):
    """Pictures of one subject and its word -> MOA_SUBJECT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SubjectEncode",
            display_name=TITLE,
            category=CATEGORY,
            description="Encodes one or more pictures of one person or thing and binds them to a word of the prompt.",
            search_aliases=[
                "moa subject",
                "face encode",
                "reference image",
                "ip adapter encode",
                "identity",
                "person",
                "consistent character",
            ],
            inputs=[
                AdapterSocket.Input("adapter", tooltip="The adapter that Apply MoA also uses."),
                io.Image.Input(
                    "images",
                    tooltip="One picture of the subject, or a batch that is averaged. A portrait works best.",
                ),
                word_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The area of the subject. The picture is cropped to it, and the rest turns grey.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Only for adapters that need a CLIP vision model. If it is missing, an error message names it.",
                ),
                io.Int.Input(
                    "occurrence",
                    default=1,
                    min=1,
                    max=20,
                    advanced=True,
                    tooltip="Which occurrence of the word, counted from 1; 'a man and a man' has two.",
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
                    tooltip="Only for FaceID Plus files: the version of the file, which the file itself does not contain. For SDXL "
                    "there is only version 2. For SD1.5 there are both.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=PAD,
                    optional=True,
                    advanced=True,
                    tooltip="How a picture becomes the square that a CLIP vision model sees. pad: all of it, with grey at the sides. crop "
                    "centre: its middle, as in IPAdapter_plus. crop face: the face, with room around it, if OpenCV is installed. tiles: up to four squares, each of which acts "
                    "on its part of the new picture; only for IP-Adapters, and for Add Subjects (MoA).",
                ),
                io.Combo.Input(
                    "combine",
                    options=[*COMBINE_MODES, FRAMES],
                    default="mean",
                    optional=True,
                    advanced=True,
                    tooltip="How several pictures become one subject. mean: the average. norm mean: the average of directions. add: the sum. "
                    "subtract: the first without the mean of the others. Only for IP-Adapters: concat: the image tokens of all pictures. one "
                    "per frame: the first picture for the first frame of an animation or picture of a batch, and so on.",
                ),
                io.Boolean.Input(
                    "before_projection",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Combines several pictures before the adapter's image projection instead of after it, as IPAdapter_plus does.",
                ),
                io.Float.Input(
                    "faceid_weight",
                    default=1.0,
                    min=-1.0,
                    max=5.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Only for version 2 of FaceID Plus files: how strong the picture is beside the face embedding.",
                ),
                io.Combo.Input(
                    "noise",
                    options=[NO_NOISE, *NOISE_KINDS, *(kind + BLURRED for kind in NOISE_KINDS)],
                    default=NO_NOISE,
                    optional=True,
                    advanced=True,
                    tooltip="Noise over the pictures, for a subject at negative_subject of Apply MoA. fade: the picture is mixed with uniform noise. "
                    "dissolve: single values become noise. gaussian: normal noise is added. shuffle: the picture is warped and upside down, too. "
                    "blurred: all of it is blurred a little.",
                ),
                io.Float.Input(
                    "noise_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How strong the noise is. 0: no noise.",
                ),
            ],
            outputs=[SubjectSocket.Output(display_name="subject", tooltip="For MoA Text Encode (Prompt).")],
        )

    @classmethod
    def execute(
        cls,
        adapter: LoadedAdapter,
        images: torch.Tensor,
        word: str,
        mask: torch.Tensor | None = None,
        clip_vision: Any = None,
        occurrence: int = 1,
        face: torch.Tensor | None = None,
        faceid_plus: str = "2",
        fit: str = PAD,
        combine: str = "mean",
        before_projection: bool = False,
        faceid_weight: float = 1.0,
        noise: str = NO_NOISE,
        noise_strength: float = 1.0,
    ) -> io.NodeOutput:
        word = word_of_prompt(word, TITLE)
        if not len(images) or (face is not None and not len(face)):  # no picture shows the subject
            return io.NodeOutput(Subject(word, occurrence, torch.zeros(0, 0), adapter.encoder))
        pictures, masks = as_pictures(images, TITLE), None if mask is None else as_masks(mask, TITLE)
        if fit == CROP_FACE:
            pictures, masks = face_crops(pictures, masks), None
        if noise != NO_NOISE:
            kind = noise.removesuffix(BLURRED)
            if fit != TILES:
                pictures, masks, fit = clip_squares(pictures, masks, fit), None, CROP_CENTRE
            pictures = add_noise(pictures.float(), cast("NoiseKind", kind), noise_strength, noise.endswith(BLURRED))
        before = cast("CombineMode", combine) if before_projection and combine != FRAMES else None
        reference = Reference(pictures, masks, clip_vision, face, faceid_plus, faceid_weight, fit, before)
        encode = subject_in_tiles if fit == TILES else subject_of
        return io.NodeOutput(encode(adapter, reference, word, occurrence, combine))


def face_crops(pictures: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
    """Square crops around the largest face of each picture, or around its mask; pictures without a face remain whole.

    Raises: ValueError when there is no face detector.
    """
    found = find_candidates(pictures, None, masks)
    if found.problem:
        raise ValueError(
            f"'fit' of '{TITLE}' is '{CROP_FACE}', but {found.problem}. Choose another 'fit', or connect 'Crop Subject (MoA)'."
        )
    return crop_pictures(pictures, found, "largest first", 1, FACE_MARGIN, WHOLE)[0]
