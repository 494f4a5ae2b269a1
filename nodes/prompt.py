"""MoA Text Encode (Prompt) and Add Subjects (MoA): a prompt and its subjects -> CONDITIONING."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host.node_text import NodeText
from .host.prompts.conditioning import encode_prompt, report
from .host.prompts.whole_prompt import add_subjects
from .sockets import CATEGORY, Subject, SubjectSocket

MAX_SUBJECTS = 8


class MoATextEncode(io.ComfyNode):
    """CLIP text encoding with subjects bound to words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        subject = SubjectSocket.Input("subject", tooltip="A subject. Its word must occur in the text.", optional=True)
        return io.Schema(
            node_id="MoATextEncode",
            display_name="MoA Text Encode (Prompt)",
            category=CATEGORY,
            description="Encodes a prompt like CLIP Text Encode (Prompt), and binds each subject to its word. Without subjects "
            "both nodes give exactly the same result.",
            search_aliases=["moa prompt", "clip text encode", "prompt", "subject prompt", "two people"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the base model."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a man on a beach",
                    tooltip="The prompt. It contains the word of each subject, for example 'a man and a woman on a beach'.",
                ),
                io.Autogrow.Input(
                    "subjects",
                    template=io.Autogrow.TemplatePrefix(subject, prefix="subject_", min=0, max=MAX_SUBJECTS),
                    optional=True,
                    tooltip=f"Up to {MAX_SUBJECTS} subjects, each with its own word.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="Connect it to the positive input of any sampler."),
                io.String.Output(
                    display_name="report",
                    tooltip="The word of each subject, with its neighbours in the prompt, and the subjects that are left out.",
                ),
            ],
        )

    @classmethod
    def execute(cls, clip: Any, text: str, subjects: dict[str, Subject] | None = None) -> io.NodeOutput:
        if clip is None:
            raise ValueError(
                "'MoA Text Encode (Prompt)' received no CLIP: the checkpoint has no text encoder. Connect 'Load CLIP' instead."
            )
        connected = [s for s in (subjects or {}).values() if s is not None]
        conditioning, bindings = encode_prompt(clip, text, [s for s in connected if not s.absent])
        text_report = report(clip, text, bindings, [s for s in connected if s.absent])
        NodeText().show(text_report)
        return io.NodeOutput(conditioning, text_report)


class MoAAddSubjects(io.ComfyNode):
    """CONDITIONING and subjects without a word -> CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        subject = SubjectSocket.Input(
            "subject", tooltip="A subject of an IP-Adapter. Its word is not used.", optional=True
        )
        return io.Schema(
            node_id="MoAAddSubjects",
            display_name="Add Subjects (MoA)",
            category=CATEGORY,
            description="Adds subjects to a whole prompt instead of to a word, as an ordinary IP-Adapter does. Any text encoder may have "
            "made the prompt. In Apply MoA, the router must be constant or mask.",
            search_aliases=[
                "ipadapter advanced",
                "image prompt",
                "style",
                "moa conditioning",
                "subjects without words",
            ],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The prompt, just before the sampler."),
                io.Autogrow.Input(
                    "subjects",
                    template=io.Autogrow.TemplatePrefix(subject, prefix="subject_", min=0, max=MAX_SUBJECTS),
                    optional=True,
                    tooltip=f"Up to {MAX_SUBJECTS} subjects, all encoded with adapters of Apply MoA.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="Connect it to the positive input of any sampler.")],
        )

    @classmethod
    def execute(cls, conditioning: list, subjects: dict[str, Subject] | None = None) -> io.NodeOutput:
        present = [s for s in (subjects or {}).values() if s is not None and not s.absent]
        return io.NodeOutput(add_subjects(conditioning, present))
