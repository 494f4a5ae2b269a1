"""MoASaveSubject, MoALoadSubject, MoASubjectBlend: a library of characters in models/moa/subjects, and what lies between two."""

from __future__ import annotations

from dataclasses import replace

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..moa_attention.blend import Along, blend
from ..moa_attention.combine import alike
from ..moa_attention.reference import square
from ..moa_attention.subject_file import StoredSubject, load_subject, save_subject
from .folders import SUBJECTS, new_file, stamp, subject_path
from .load import CATEGORY
from .sockets import Subject, SubjectSocket

THUMBNAIL = 256
"""Pixels of a side."""


class MoASaveSubject(io.ComfyNode):
    """MOA_SUBJECT -> `models/moa/subjects/<prefix>_00001_.safetensors`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASaveSubject",
            display_name="Save Subject (MoA)",
            category=CATEGORY,
            description="Keeps a subject for later: no picture and no CLIP vision needed again. Never writes over a file.",
            search_aliases=["moa save subject", "character library", "save embeds", "save face"],
            is_output_node=True,
            inputs=[
                SubjectSocket.Input("subject", tooltip="From SubjectEncode or MoASubjectBlend."),
                io.String.Input(
                    "filename_prefix", default="somebody", tooltip="A name, or folder/name, inside models/moa/subjects."
                ),
                io.Image.Input(
                    "thumbnail", optional=True, tooltip="A picture to know the subject by; shown when it is loaded."
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file is.")],
        )

    @classmethod
    def execute(cls, subject: Subject, filename_prefix: str, thumbnail: torch.Tensor | None = None) -> io.NodeOutput:
        if subject.absent:
            raise ValueError(
                f"There is nobody to save as '{filename_prefix}': SubjectEncode got no picture of '{subject.word}'. See the report "
                "of MoASubjectCrop for why it left them out."
            )
        path = new_file(SUBJECTS, filename_prefix)
        kept = (subject.features, subject.encoder, subject.word, subject.occurrence, subject.tokens)
        save_subject(StoredSubject(*kept, small(thumbnail)), path)
        return io.NodeOutput(str(path))


def small(picture: torch.Tensor | None) -> torch.Tensor | None:
    """The first picture of a batch (B,H,W,3) as thumbnail (h,w,3) uint8."""
    if picture is None:
        return None
    reduced = square(picture[0, ..., :3].movedim(-1, 0).float(), THUMBNAIL).movedim(0, -1)
    return (reduced.clamp(0, 1) * 255).round().byte()


class MoALoadSubject(io.ComfyNode):
    """A file of `models/moa/subjects` -> MOA_SUBJECT and its thumbnail."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadSubject",
            display_name="Load Subject (MoA)",
            category=CATEGORY,
            description="A subject that was saved. It fits the adapter it was encoded with, and no other.",
            search_aliases=["moa load subject", "character library", "load embeds", "load face"],
            inputs=[
                io.Combo.Input(
                    "subject_file",
                    options=folder_paths.get_filename_list(SUBJECTS),
                    tooltip="A file in models/moa/subjects, written by MoASaveSubject.",
                ),
                io.String.Input("word", default="", tooltip="Another word of the prompt than it was saved with."),
                io.Int.Input(
                    "occurrence",
                    default=0,
                    min=0,
                    max=20,
                    advanced=True,
                    tooltip="Which occurrence of the word, counted from 1; 0 as it was saved.",
                ),
            ],
            outputs=[
                SubjectSocket.Output(display_name="subject", tooltip="For MoATextEncode."),
                io.Image.Output(display_name="thumbnail", tooltip="The picture it was saved with; grey without one."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, subject_file: str, word: str, occurrence: int) -> str:
        return stamp(subject_path(subject_file))

    @classmethod
    def execute(cls, subject_file: str, word: str, occurrence: int) -> io.NodeOutput:
        stored = load_subject(subject_path(subject_file))
        bound = (word.strip() or stored.word, occurrence or stored.occurrence)
        subject = Subject(*bound, stored.features, stored.encoder, tokens=stored.tokens)
        grey = torch.full((THUMBNAIL, THUMBNAIL, 3), 127, dtype=torch.uint8)
        picture = (grey if stored.thumbnail is None else stored.thumbnail)[None].float() / 255
        return io.NodeOutput(subject, picture, ui=ui.PreviewImage(picture, cls=cls))


class MoASubjectBlend(io.ComfyNode):
    """Two MOA_SUBJECT -> one between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASubjectBlend",
            display_name="Blend Subjects (MoA)",
            category=CATEGORY,
            description="Somebody between two subjects; a row of amounts is a morph.",
            search_aliases=["moa morph", "mix faces", "combine embeds", "interpolate"],
            inputs=[
                SubjectSocket.Input("first", tooltip="Its word and settings are kept."),
                SubjectSocket.Input("second", tooltip="Encoded with the same adapter."),
                io.Float.Input(
                    "amount", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="0 the first, 1 the second."
                ),
                io.Combo.Input(
                    "along",
                    options=["sphere", "straight"],
                    tooltip="sphere keeps the strength of both on the way; straight is their weighted mean.",
                ),
            ],
            outputs=[SubjectSocket.Output(display_name="subject", tooltip="For MoATextEncode or MoASaveSubject.")],
        )

    @classmethod
    def execute(cls, first: Subject, second: Subject, amount: float, along: Along) -> io.NodeOutput:
        if first.encoder != second.encoder:
            raise ValueError(
                f"The subjects were encoded for different adapters ('{first.encoder}' and '{second.encoder}'), so there is "
                "nothing between them. Encode both with one LoadMoAAdapter."
            )
        if first.absent or second.absent:
            return io.NodeOutput(
                replace(first, features=second.features, tokens=second.tokens) if first.absent else first
            )
        one, other = alike([first.features, second.features])
        return io.NodeOutput(first.seen_as(blend(one, other, amount, along)))
