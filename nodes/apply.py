"""ApplyMoA: the adapter beside the model's own attention."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ..moa_attention.trace import Trace
from .load import CATEGORY
from .patch import PRIOR_ONLY, apply_adapter
from .sockets import Adapter, AdapterSocket, TraceSocket


def bias_from_strength(strength: float) -> float:
    """The prior's logit bias at which the odds of the personalised branch are multiplied by `strength`."""
    return -math.log(strength) if strength > 0 else PRIOR_ONLY


class ApplyMoA(io.ComfyNode):
    """MODEL -> MODEL with the personalised branch, and a trace of where it spoke."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ApplyMoA",
            display_name="Apply MoA",
            category=CATEGORY,
            description="Adds the adapter to a model. Only prompts with subjects change; everything else stays the base "
            "model's, exactly.",
            search_aliases=["moa apply", "mixture of attention", "ip adapter apply", "personalize", "face", "subject"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model of the family the adapter was trained for; LoRAs may come before."
                ),
                AdapterSocket.Input("adapter", tooltip="The adapter the subjects were encoded with."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Multiplies the odds of the personalised branch against the prior, at every pixel of every layer. "
                    "1 as trained, 0 the base model exactly, more for more of the subject.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="From which part of sampling on the subjects may speak.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Until which part of sampling the subjects may speak.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler."),
                TraceSocket.Output(
                    display_name="trace", tooltip="For RouterVisualize; filled by sampling with this model."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, adapter: Adapter, strength: float, start_percent: float = 0.0, end_percent: float = 1.0
    ) -> io.NodeOutput:
        trace = Trace(adapter.patcher.model.config.layers)
        patched = apply_adapter(
            model,
            adapter.patcher,
            encoder=adapter.encoder,
            prior_bias=bias_from_strength(strength),
            start=start_percent,
            end=end_percent,
            trace=trace,
        )
        return io.NodeOutput(patched, trace)
