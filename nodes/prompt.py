"""MoATextEncode: a prompt and its subjects -> CONDITIONING."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .load import CATEGORY
from .sockets import Subject, SubjectSocket
from .text import encode_prompt, report

MOST_SUBJECTS = 8


class MoATextEncode(io.ComfyNode):
    """CLIP text encoding that remembers which word is which subject."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        subject = SubjectSocket.Input("subject", tooltip="A subject; its word must occur in the text.", optional=True)
        return io.Schema(
            node_id="MoATextEncode",
            display_name="MoA Text Encode (Prompt)",
            category=CATEGORY,
            description="Encodes a prompt like CLIP Text Encode and puts each subject on its word. "
            "Without subjects it is CLIP Text Encode.",
            search_aliases=["moa prompt", "clip text encode", "prompt", "subject prompt", "two people"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the base model."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a man on a beach",
                    tooltip="The prompt, with each subject's word in it: 'a man and a woman on a beach'.",
                ),
                io.Autogrow.Input(
                    "subjects",
                    template=io.Autogrow.TemplatePrefix(subject, prefix="subject_", min=0, max=MOST_SUBJECTS),
                    optional=True,
                    tooltip="Any number of subjects, each with its own word.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="For the positive input of any sampler."),
                io.String.Output(display_name="report", tooltip="Which subject sits on which token."),
            ],
        )

    @classmethod
    def execute(cls, clip: Any, text: str, subjects: dict[str, Subject] | None = None) -> io.NodeOutput:
        if clip is None:
            raise ValueError(
                "MoATextEncode got no CLIP: the checkpoint has no text encoder. Load one with 'Load CLIP'."
            )
        given = [s for s in (subjects or {}).values() if s is not None]
        conditioning, bindings = encode_prompt(clip, text, [s for s in given if not s.absent])
        return io.NodeOutput(conditioning, report(text, bindings, [s for s in given if s.absent]))
