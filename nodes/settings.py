"""Subject Settings (MoA): strength, window, region and style of one subject, without encoding it again."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from comfy_api.latest import io

from ..moa_attention.run.emphasis import PLAIN_STYLE, SCALINGS, V_ONLY, Style
from ..moa_attention.run.strength import LayerStrength
from ..moa_attention.run.weight_types import LINEAR, WEIGHT_TYPES
from ..moa_attention.subjects.masks import as_masks
from .sockets import CATEGORY, LayerStrengthSocket, Subject, SubjectSettings, SubjectSocket


class MoASubjectSettings(io.ComfyNode):
    """MOA_SUBJECT -> MOA_SUBJECT with other settings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASubjectSettings",
            display_name="Subject Settings (MoA)",
            category=CATEGORY,
            description="Sets the strength, the sampling window and the region of one subject. A change here does not encode its "
            "pictures again.",
            search_aliases=["moa strength", "subject weight", "subject mask", "regional", "ip adapter weight"],
            inputs=[
                SubjectSocket.Input("subject", tooltip="From Encode Subject (MoA). Earlier settings are replaced."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-1.0,
                    max=5.0,
                    step=0.05,
                    tooltip="The strength of this subject alone. The strength of Apply MoA applies to all subjects. Below 1 it multiplies the "
                    "subject's share, and the base model gets the rest; at 0 the subject has no effect. Above 1, with learned routers, "
                    "it moves the word's embedding further towards the subject. Below 0, only for IP-Adapters, it acts against the picture.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the sampling this subject begins to act: 0 is the start, 1 the end.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the sampling this subject stops acting: 0 is the start, 1 the end.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="The area of the new picture that the subject may occupy, stretched to the picture's size. Every router of "
                    "Apply MoA respects it; the router 'mask' requires it. A batch of masks: one for each picture of a batch or an animation.",
                ),
                io.Combo.Input(
                    "weight_type",
                    options=list(WEIGHT_TYPES),
                    default=LINEAR,
                    optional=True,
                    advanced=True,
                    tooltip="Only for IP-Adapters: the blocks of the U-Net in which the picture acts, by the names of IPAdapter_plus. linear: all "
                    "alike. style transfer: without the blocks that decide the composition. composition: these blocks alone.",
                ),
                io.Combo.Input(
                    "embeds_scaling",
                    options=list(SCALINGS),
                    default=V_ONLY,
                    optional=True,
                    advanced=True,
                    tooltip="Only for IP-Adapters: what the strength multiplies. V only: the result of the attention. The others: keys and values, "
                    "as in IPAdapter_plus.",
                ),
                LayerStrengthSocket.Input(
                    "layer_strength",
                    optional=True,
                    tooltip="Only for IP-Adapters: factors of this subject's strength for parts of the U-Net.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Only for IP-Adapters: factors of the strength for the pictures of a batch or the frames of an animation, in order: "
                    "'0, 0.5, 1'. The last one holds for all further ones. A list of numbers may be connected, too.",
                ),
            ],
            outputs=[SubjectSocket.Output(display_name="subject", tooltip="Connect it to MoA Text Encode (Prompt).")],
        )

    @classmethod
    def execute(
        cls,
        subject: Subject,
        strength: float,
        start_percent: float,
        end_percent: float,
        region: torch.Tensor | None = None,
        weight_type: str = LINEAR,
        embeds_scaling: str = V_ONLY,
        layer_strength: LayerStrength | None = None,
        weights: str | list[float] = "",
    ) -> io.NodeOutput:
        if subject.absent:
            return io.NodeOutput(subject)
        area = None if region is None else checked_region(subject, region)
        style = Style(weight_type, embeds_scaling, layer_strength, frame_weights(weights))
        plain = (weight_type, embeds_scaling, layer_strength, style.weights) == (LINEAR, V_ONLY, None, ())
        if not subject.tokens and (strength < 0 or not plain):
            raise ValueError(
                f"Subject '{subject.word}' has no image tokens. In 'Subject Settings (MoA)', a strength below 0, 'weight_type', "
                "'embeds_scaling', 'layer_strength' and 'weights' need a subject of an IP-Adapter. Set them back, and use 'Layer "
                "Strength (MoA)' at 'Apply MoA'."
            )
        style = PLAIN_STYLE if plain else style
        terms = SubjectSettings(strength, start_percent, end_percent, area, style)
        return io.NodeOutput(replace(subject, settings=terms))


def frame_weights(weights: str | list[float]) -> tuple[float, ...]:
    """'0, 0.5' -> (0.0, 0.5); a list of numbers remains what it is.

    Raises: ValueError when the text is no list of numbers.
    """
    parts = weights.replace("\n", ",").split(",") if isinstance(weights, str) else weights
    try:
        numbers = tuple(float(part) for part in parts if str(part).strip())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"'weights' in 'Subject Settings (MoA)' must be numbers separated by commas, such as '0, 0.5, 1'; found '{weights}'."
        ) from error
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"'weights' in 'Subject Settings (MoA)' must be finite numbers; found '{weights}'.")
    return numbers


def checked_region(subject: Subject, region: torch.Tensor) -> torch.Tensor:
    """The region of a subject, (h,w), or (P,h,w) of several masks.

    Raises: ValueError when nothing is painted.
    """
    masks = as_masks(region, "Subject Settings (MoA)", "region")
    if not masks.any():
        raise ValueError(
            f"The region of subject '{subject.word}' is empty: it is black everywhere. In 'Subject Settings (MoA)', connect a "
            "mask of the area that the subject may occupy, or disconnect 'region'."
        )
    return (masks if len(masks) > 1 else masks[0]).cpu()
