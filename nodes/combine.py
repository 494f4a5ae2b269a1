"""MoASubjectCombine: several pictures of one subject, each as loud as the user wants."""

from __future__ import annotations

from comfy_api.latest import io

from ..moa_attention.combine import HOWS, How, combine
from .load import CATEGORY
from .sockets import Subject, SubjectSocket

MOST_PICTURES = 16


class MoASubjectCombine(io.ComfyNode):
    """Several MOA_SUBJECT of the same person or thing -> one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        picture = SubjectSocket.Input(
            "subject", tooltip="The same subject, encoded from another picture.", optional=True
        )
        return io.Schema(
            node_id="MoASubjectCombine",
            display_name="Combine Pictures (MoA)",
            category=CATEGORY,
            description="Makes one subject of several pictures that were encoded one by one, each with its own mask or crop. "
            "Word and settings are those of the first.",
            search_aliases=["moa combine", "several pictures", "combine embeds", "average faces", "concat"],
            inputs=[
                io.Autogrow.Input(
                    "subjects",
                    template=io.Autogrow.TemplatePrefix(picture, prefix="subject_", min=0, max=MOST_PICTURES),
                    tooltip="Two or more encodings of the same subject.",
                ),
                io.Combo.Input(
                    "how",
                    options=list(HOWS),
                    tooltip="mean: the average. norm mean: the average of directions, so that no picture outweighs the others. "
                    "concat: all image tokens side by side, for imported IP-Adapters only; slower, and sharper with few "
                    "tokens.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    optional=True,
                    tooltip="How much each counts, in order: '1, 0.5, 0.5'. Empty: all alike. Not for concat.",
                ),
            ],
            outputs=[SubjectSocket.Output(display_name="subject", tooltip="For MoATextEncode.")],
        )

    @classmethod
    def execute(cls, subjects: dict[str, Subject], how: How, weights: str = "") -> io.NodeOutput:
        given = [s for s in subjects.values() if s is not None]
        if not given:
            raise ValueError("MoASubjectCombine has nothing to combine: connect encodings of the same subject.")
        if all(s.absent for s in given):
            return io.NodeOutput(given[0])
        encoders = {s.encoder for s in given}
        if len(encoders) > 1:
            raise ValueError(f"The subjects were encoded for different adapters: {sorted(encoders)}.")
        if how == "concat" and not given[0].tokens:
            raise ValueError(
                "'concat' puts image tokens side by side, and this adapter has none: its subjects are one word each. Use 'mean' "
                "or 'norm mean'."
            )
        parts = list(zip(given, read_weights(weights, len(given), how), strict=True))
        here, loud = zip(*[(s, weight) for s, weight in parts if not s.absent], strict=True)
        return io.NodeOutput(here[0].seen_as(combine([s.features for s in here], loud, how)))


def read_weights(text: str, count: int, how: How) -> list[float]:
    """'1, 0.5' -> [1.0, 0.5]

    Raises: ValueError when something in it is no number, there are too few or too many, or they would have no effect.
    """
    if not text.strip():
        return [1.0] * count
    if how == "concat":
        raise ValueError("'concat' knows no weights. Leave them empty, or choose 'mean' or 'norm mean'.")
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"The weights '{text}' are not numbers with commas between them, like '1, 0.5'.") from error
    if len(weights) != count:
        raise ValueError(f"{count} subjects are connected, but there are {len(weights)} weights: '{text}'.")
    return weights
