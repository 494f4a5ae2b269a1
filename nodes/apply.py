"""ApplyMoA: the adapter beside the model's own attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..moa_attention.budget import ALL, AutomaticBudget, Budget
from ..moa_attention.trace import Trace
from ..moa_attention.untrained import ConstantRouter, MaskRouter, UntrainedRouter
from ..moa_attention.word_router import PlaceRouter, WordRouter
from .call import PRIOR_ONLY
from .layer_strength import LayerStrength
from .load import CATEGORY
from .patch import apply_adapter
from .sockets import Adapter, AdapterSocket, LayerStrengthSocket, TraceSocket


def bias_from_strength(strength: float) -> float:
    """The prior's logit bias at which the odds of the personalised branch are multiplied by `strength`."""
    return -math.log(strength) if strength > 0 else PRIOR_ONLY


ROUTERS: dict[str, Callable[[], UntrainedRouter]] = {
    "attention": WordRouter,
    "mask": MaskRouter,
    "constant": ConstantRouter,
}

BUDGETS: dict[str, Callable[[], Budget | AutomaticBudget]] = {
    "automatic": AutomaticBudget,
    "all": lambda: ALL,
    "1/2": lambda: Budget(1 / 2),
    "1/4": lambda: Budget(1 / 4),
    "1/8": lambda: Budget(1 / 8),
}


def choose_router(name: str, adapter: Adapter) -> UntrainedRouter | None:
    """What decides where subjects speak; None for the adapter's own routers alone.

    Raises: ValueError when the adapter has none and they are asked for.
    """
    has_own = adapter.patcher.model.has_routers
    if name == "learned" and not has_own:
        raise ValueError(
            f"Adapter '{adapter.name}' brings no learned router. Choose 'attention' (each subject speaks where its word is) "
            "or 'constant' (everywhere) in ApplyMoA."
        )
    if name == "learned" or (name == "automatic" and has_own):
        return None if adapter.patcher.model.tells_apart else PlaceRouter()
    return ROUTERS["attention" if name == "automatic" else name]()


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
                    tooltip="1 as trained, 0 the base model exactly, more for more of the subject. With learned routers it "
                    "multiplies the odds of the personalised branch at every pixel of every layer, with others its share.",
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
                io.Combo.Input(
                    "router",
                    options=["automatic", "learned", *ROUTERS],
                    default="automatic",
                    optional=True,
                    tooltip="Who decides where subjects speak. learned: routers in the adapter's file. attention: each speaks "
                    "where the model itself looks for its word. mask: in the region of its settings. constant: everywhere, as "
                    "IP-Adapters do by themselves. "
                    "automatic: learned where the file brings them, else attention.",
                ),
                LayerStrengthSocket.Input(
                    "layer_strength", optional=True, tooltip="Factors of the strength for parts of the U-Net."
                ),
                io.Combo.Input(
                    "pixels",
                    options=list(BUDGETS),
                    default="automatic",
                    optional=True,
                    advanced=True,
                    tooltip="For how many pixels of a layer subjects are computed: those where the router gives them most; the "
                    "others are the base model's. automatic: as many as the routers give to subjects, found while sampling. "
                    "all: exact, slower. A fixed part: the same shapes in every step, for compiled models.",
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
        cls,
        model: Any,
        adapter: Adapter,
        strength: float,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        router: str = "automatic",
        layer_strength: LayerStrength | None = None,
        pixels: str = "automatic",
    ) -> io.NodeOutput:
        trace = Trace(adapter.patcher.model.config.layers)
        patched = apply_adapter(
            model,
            adapter.patcher,
            encoder=adapter.encoder,
            prior_bias=bias_from_strength(strength),
            start=start_percent,
            end=end_percent,
            router=choose_router(router, adapter),
            loudness=layer_strength.by_layer(adapter.patcher.model.config.layers) if layer_strength else None,
            budget=BUDGETS[pixels](),
            trace=trace,
        )
        return io.NodeOutput(patched, trace)
