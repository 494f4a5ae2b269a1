"""Save Subject (MoA), Load Subject (MoA), Load Embeds (MoA) and Blend Subjects (MoA): subjects from files, and between two."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..moa_attention.subjects.mixing import BLEND_PATHS, BlendPath
from ..moa_attention.subjects.pictures import as_pictures
from .host.files.folders import EMBEDS, SUBJECTS, embeds_path, file_version, subject_path
from .host.files.listing import file_names
from .host.files.subject_files import restore_subject, store_subject
from .host.node_text import NodeText
from .host.pictures.embeds import subject_of_embeds
from .host.pictures.subject_mixing import blend_subjects
from .host.prompts.prompt_words import word_of_prompt
from .sockets import CATEGORY, AdapterSocket, LoadedAdapter, Subject, SubjectSocket, word_input


class MoASaveSubject(io.ComfyNode):
    """MOA_SUBJECT -> `models/moa/subjects/<prefix>_00001_.safetensors`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASaveSubject",
            display_name="Save Subject (MoA)",
            category=CATEGORY,
            description="Saves a subject in models/moa/subjects. Load Subject (MoA) then needs neither its pictures nor a CLIP vision "
            "model. Existing files are never overwritten.",
            search_aliases=["moa save subject", "character library", "save embeds", "save face"],
            is_output_node=True,
            inputs=[
                SubjectSocket.Input(
                    "subject", tooltip="From Encode Subject (MoA), Combine Pictures (MoA) or Blend Subjects (MoA)."
                ),
                io.String.Input(
                    "filename_prefix", default="subject", tooltip="A name, or folder/name, inside models/moa/subjects."
                ),
                io.Image.Input(
                    "thumbnail", optional=True, tooltip="A picture of the subject; Load Subject (MoA) shows it."
                ),
                io.String.Input(
                    "licence",
                    default="",
                    optional=True,
                    tooltip="A note on whom or what the subject shows, and what it may be used for. Load Subject (MoA) shows it.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The path of the file.")],
        )

    @classmethod
    def execute(
        cls, subject: Subject, filename_prefix: str, thumbnail: torch.Tensor | None = None, licence: str = ""
    ) -> io.NodeOutput:
        pictures = None if thumbnail is None else as_pictures(thumbnail, "Save Subject (MoA)", "thumbnail")
        return io.NodeOutput(str(store_subject(subject, filename_prefix, pictures, licence)))


class MoALoadSubject(io.ComfyNode):
    """A file of `models/moa/subjects` -> MOA_SUBJECT and its thumbnail."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadSubject",
            display_name="Load Subject (MoA)",
            category=CATEGORY,
            description="Loads a saved subject. It fits only adapters with the encoder and fusion that it was encoded with.",
            search_aliases=["moa load subject", "character library", "load embeds", "load face"],
            inputs=[
                io.Combo.Input(
                    "subject_file",
                    options=file_names(SUBJECTS),
                    tooltip="A file in models/moa/subjects, written by Save Subject (MoA).",
                ),
                io.String.Input(
                    "word",
                    default="",
                    tooltip="The word of the prompt that becomes the subject. Empty keeps the saved word.",
                ),
                io.Int.Input(
                    "occurrence",
                    default=0,
                    min=0,
                    max=20,
                    advanced=True,
                    tooltip="Which occurrence of the word, counted from 1. 0 keeps the saved one.",
                ),
            ],
            outputs=[
                SubjectSocket.Output(display_name="subject", tooltip="Connect it to MoA Text Encode (Prompt)."),
                io.Image.Output(
                    display_name="thumbnail",
                    tooltip="The picture that was saved with the subject, or grey if there is none.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, subject_file: str, word: str, occurrence: int) -> str:
        return file_version(subject_path(subject_file))

    @classmethod
    def execute(cls, subject_file: str, word: str, occurrence: int) -> io.NodeOutput:
        subject, thumbnail, licence = restore_subject(subject_file, word, occurrence)
        NodeText().show(f"'{subject.word}'. Licence: {licence or 'no note'}.")
        return io.NodeOutput(subject, thumbnail, ui=ui.PreviewImage(thumbnail, cls=cls))


class MoALoadEmbeds(io.ComfyNode):
    """A file of IPAdapter_plus in the input folder -> MOA_SUBJECT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadEmbeds",
            display_name="Load Embeds (MoA)",
            category=CATEGORY,
            description="Loads image features that IPAdapter_plus saved as .ipadpt. The result is a subject, as if its pictures were "
            "encoded here. The features of several pictures are joined, as concat does.",
            search_aliases=["ipadapter load embeds", "ipadpt", "moa embeds", "saved features"],
            inputs=[
                AdapterSocket.Input(
                    "adapter", tooltip="An IP-Adapter that reads the CLIP vision model with which the file was made."
                ),
                io.Combo.Input(
                    "embeds_file",
                    options=file_names(EMBEDS),
                    tooltip="A file in ComfyUI's input folder, written by IPAdapter Save Embeds.",
                ),
                word_input(),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Only for PLUS files: the model with which the file was made, for what the negative prompt gets. Without it "
                    "the negative prompt gets nothing.",
                ),
            ],
            outputs=[
                SubjectSocket.Output(
                    display_name="subject", tooltip="Connect it to MoA Text Encode (Prompt) or Save Subject (MoA)."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: LoadedAdapter, embeds_file: str, word: str, clip_vision: Any = None) -> str:
        return file_version(embeds_path(embeds_file))

    @classmethod
    def execute(cls, adapter: LoadedAdapter, embeds_file: str, word: str, clip_vision: Any = None) -> io.NodeOutput:
        return io.NodeOutput(
            subject_of_embeds(adapter, embeds_path(embeds_file), word_of_prompt(word, "Load Embeds (MoA)"), clip_vision)
        )


class MoASubjectBlend(io.ComfyNode):
    """Two MOA_SUBJECT -> one between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASubjectBlend",
            display_name="Blend Subjects (MoA)",
            category=CATEGORY,
            description="Makes a subject between two others. Several of these nodes with rising amounts give a gradual transition.",
            search_aliases=["moa morph", "mix faces", "combine embeds", "interpolate"],
            inputs=[
                SubjectSocket.Input("first", tooltip="The result keeps the word and the settings of this subject."),
                SubjectSocket.Input("second", tooltip="A subject that was encoded with the same adapter."),
                io.Float.Input(
                    "amount", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="0 gives the first, 1 the second."
                ),
                io.Combo.Input(
                    "along",
                    options=list(BLEND_PATHS),
                    tooltip="sphere: the features keep their magnitude on the way from the first to the second. straight: the weighted "
                    "mean; halfway between unlike subjects the likeness fades.",
                ),
            ],
            outputs=[
                SubjectSocket.Output(
                    display_name="subject", tooltip="Connect it to MoA Text Encode (Prompt) or Save Subject (MoA)."
                )
            ],
        )

    @classmethod
    def execute(cls, first: Subject, second: Subject, amount: float, along: BlendPath) -> io.NodeOutput:
        return io.NodeOutput(blend_subjects(first, second, amount, along))
