"""Combine Pictures (MoA): one subject from several pictures that were encoded one by one."""

from __future__ import annotations

from comfy_api.latest import io

from ..moa_attention.subjects.mixing import COMBINE_MODES, CombineMode
from .host.pictures.subject_mixing import combine_subjects
from .sockets import CATEGORY, Subject, SubjectSocket

MAX_PICTURES = 16


class MoASubjectCombine(io.ComfyNode):
    """Several MOA_SUBJECT of the same person or thing -> one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        subject = SubjectSocket.Input(
            "subject", tooltip="The same subject, encoded from another picture.", optional=True
        )
        return io.Schema(
            node_id="MoASubjectCombine",
            display_name="Combine Pictures (MoA)",
            category=CATEGORY,
            description="Makes one subject from several pictures that were encoded one by one, each with its own mask or crop. The "
            "result has the word and the settings of the first.",
            search_aliases=["moa combine", "several pictures", "combine embeds", "average faces", "concat"],
            inputs=[
                io.Autogrow.Input(
                    "subjects",
                    template=io.Autogrow.TemplatePrefix(subject, prefix="subject_", min=0, max=MAX_PICTURES),
                    tooltip="Two or more encodings of the same subject, with the same adapter.",
                ),
                io.Combo.Input(
                    "how",
                    options=list(COMBINE_MODES),
                    tooltip="mean: the average. norm mean: the average of directions, so that no picture outweighs the others. "
                    "concat: the image tokens of all pictures, only for IP-Adapters; attention is slower with more tokens.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    optional=True,
                    tooltip="The weight of each encoding, in order: '1, 0.5, 0.5'. Empty gives all the same weight. concat takes no weights.",
                ),
            ],
            outputs=[
                SubjectSocket.Output(
                    display_name="subject", tooltip="Connect it to MoA Text Encode (Prompt) or Save Subject (MoA)."
                )
            ],
        )

    @classmethod
    def execute(cls, subjects: dict[str, Subject], how: CombineMode, weights: str = "") -> io.NodeOutput:
        connected = [s for s in subjects.values() if s is not None]
        return io.NodeOutput(combine_subjects(connected, how, weights))
