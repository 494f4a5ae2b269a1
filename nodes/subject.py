"""SubjectEncode: pictures of somebody -> a subject bound to a word."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..moa_attention.image_prompt import ImagePromptAdapter
from .load import CATEGORY
from .sight import VERSIONS, Given, see
from .sockets import Adapter, AdapterSocket, FaceSocket, Subject, SubjectSocket


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
        if not len(images) or (face is not None and not len(face)):  # nobody was found
            return io.NodeOutput(Subject(word.strip(), occurrence, torch.zeros(0, 0), adapter.encoder))
        features = see(adapter, Given(images, mask, clip_vision, face, faceid_plus)).mean(dim=0, keepdim=True)
        return io.NodeOutput(
            Subject(word.strip(), occurrence, features, adapter.encoder, tokens=tokens_in(adapter, features))
        )


def tokens_in(adapter: Adapter, features: torch.Tensor) -> int:
    """Image tokens of a feature (1,F); 0 where it is one feature."""
    module = adapter.patcher.model
    return features.shape[-1] // module.config.text_width if isinstance(module, ImagePromptAdapter) else 0
