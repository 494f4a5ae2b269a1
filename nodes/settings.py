"""MoASubjectSettings: when, where and how loudly a subject may speak, without encoding it again."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io

from .load import CATEGORY
from .sockets import Subject, SubjectSocket, Terms


class MoASubjectSettings(io.ComfyNode):
    """MOA_SUBJECT -> MOA_SUBJECT with settings of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASubjectSettings",
            display_name="Subject Settings (MoA)",
            category=CATEGORY,
            description="Strength, part of the sampling and region of one subject. Nothing is encoded again.",
            search_aliases=["moa strength", "subject weight", "subject mask", "regional", "ip adapter weight"],
            inputs=[
                SubjectSocket.Input("subject", tooltip="From SubjectEncode. Settings it already has are replaced."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Of this subject alone; ApplyMoA's is for all. With learned routers it is how far the word becomes the "
                    "subject, with others its share.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="From which part of sampling on."
                ),
                io.Float.Input(
                    "end_percent", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Until which part of sampling."
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="Where in the new picture the subject may be, stretched to its format. Not needed: it confines any "
                    "router, and the router 'mask' of ApplyMoA goes by regions alone.",
                ),
            ],
            outputs=[SubjectSocket.Output(display_name="subject", tooltip="For MoATextEncode.")],
        )

    @classmethod
    def execute(
        cls,
        subject: Subject,
        strength: float,
        start_percent: float,
        end_percent: float,
        region: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if subject.absent:
            return io.NodeOutput(subject)
        if region is not None and not region.any():
            raise ValueError(
                f"The region of subject '{subject.word}' is empty. Paint where it may be, or leave it out."
            )
        drawn = None if region is None else region[0].float().cpu()
        return io.NodeOutput(replace(subject, terms=Terms(strength, start_percent, end_percent, drawn)))
