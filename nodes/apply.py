"""Apply MoA: the adapter beside the model's own attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..moa_attention.formats.errors import printable
from ..moa_attention.routers import ROUTERS, PlaceRouter, PublishedRouter, TrainingFreeRouter
from ..moa_attention.run.budget import ALL, AutomaticBudget, Budget
from ..moa_attention.run.guidance import SubjectGuidance
from ..moa_attention.run.strength import LayerStrength, bias_from_strength
from ..moa_attention.run.trace import Trace
from .host.model.patch import apply_adapter
from .host.node_text import NodeText
from .host.pictures.live_map import LiveMap
from .host.prompts.negative_image import AS_PUBLISHED, NEGATIVE_IMAGES, NegativeImage
from .host.prompts.tiles import check_no_tiles
from .sockets import (
    CATEGORY,
    AdapterSocket,
    LayerStrengthSocket,
    LoadedAdapter,
    Subject,
    SubjectSocket,
    TraceSocket,
)

BUDGETS: dict[str, Callable[[], Budget | AutomaticBudget]] = {
    "automatic": AutomaticBudget,
    "all": lambda: ALL,
    "1/2": lambda: Budget(1 / 2),
    "1/4": lambda: Budget(1 / 4),
    "1/8": lambda: Budget(1 / 8),
}


PRESETS = {"IPAdapter_plus": 0.0, "IPAdapter_plus with middle block": 1.0}
"""Choices of the router with the factor of the middle block. IPAdapter_plus names that block otherwise than ComfyUI does today, so that its
image prompts do not reach it."""


def choose_router(name: str, adapter: LoadedAdapter) -> TrainingFreeRouter | None:
    """The training-free router behind a choice; None for the adapter's own routers alone.

    Raises: ValueError when the adapter has no routers and "learned" is chosen.
    """
    has_own = adapter.patcher.model.has_routers
    if name == "learned" and not has_own:
        raise ValueError(
            f"Adapter '{adapter.name}' has no learned routers. In 'Apply MoA', set 'router' to 'attention' (each subject "
            "where the model attends to its word) or 'constant' (everywhere)."
        )
    if name in PRESETS:
        return PublishedRouter()
    if name == "learned" or (name == "automatic" and has_own):
        return None if adapter.patcher.model.separates_subjects else PlaceRouter()
    return ROUTERS["attention" if name == "automatic" else name]()


def layer_factors(
    adapter: LoadedAdapter, chosen: LayerStrength | None, middle: float, faceid_lora: float
) -> dict[str, float]:
    """Factors of the strength by layer name, where they are not 1.

    Args:
        middle: of image prompts in the middle block.
        faceid_lora: strength of the LoRA of a FaceID file on the subject's pixels. At 0, self-attention layers have no effect.
    """
    module = adapter.patcher.model
    factors = chosen.by_layer(module.config.layers) if chosen else {}
    specs = module.config.layers if module.feature_is_tokens else ()
    without = [spec.name for spec in specs if spec.is_cross and spec.stage == "middle" and not middle]
    outside = [spec.name for spec in specs if not spec.is_cross and not faceid_lora]
    return {**factors, **dict.fromkeys((*without, *outside), 0.0)}


def fitting_negative(adapter: LoadedAdapter, subject: Subject | None) -> Subject | None:
    """The connected negative subject; None without a picture.

    Raises: ValueError when the adapter has no image prompts, the subject is in tiles, or it was encoded with another adapter.
    """
    if subject is None or subject.absent:
        return None
    check_no_tiles([subject])
    if not subject.tokens or subject.encoder != adapter.encoder:
        raise ValueError(
            f"'negative_subject' of 'Apply MoA' must be encoded with the applied adapter, which must be an IP-Adapter. The subject "
            f"'{subject.word}' was encoded with '{subject.encoder}', the adapter '{adapter.name}' has '{adapter.encoder}'. Disconnect it, "
            "or connect both nodes to the same 'Load MoA Adapter'."
        )
    return subject


def recommendation(adapter: LoadedAdapter, strength: float, start_percent: float, end_percent: float) -> str:
    """What the adapter's file recommends, for users; empty where it has no such record or the settings agree with it."""
    record = adapter.provenance.get("recommended")
    if not isinstance(record, dict):
        return ""
    here = {"strength": strength, "start_percent": start_percent, "end_percent": end_percent}
    if all(record.get(name, value) == value for name, value in here.items()):
        return ""
    return f"The adapter recommends {printable(', '.join(f'{name} {value}' for name, value in record.items()))}."


class ApplyMoA(io.ComfyNode):
    """MODEL -> MODEL with the personalised branch, and a trace of its shares."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ApplyMoA",
            display_name="Apply MoA",
            category=CATEGORY,
            description="Adds an adapter to a model. Prompts with subjects then show them; prompts without subjects give exactly "
            "the base model's result.",
            search_aliases=[
                "moa apply",
                "mixture of attention",
                "ip adapter apply",
                "personalize",
                "face",
                "subject",
                "consistent character",
                "instantid",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model of the adapter's family, such as SD1.5. LoRAs may come before or after."
                ),
                AdapterSocket.Input(
                    "adapter",
                    tooltip="The adapter that encoded the subjects. For two adapters, put two Apply MoA in a row.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strong the subjects are. 0 is exactly the base model. 1 is the adapter as trained. More than 1 "
                    "strengthens the subjects. It multiplies the odds of the personalised branch (learned routers) or the "
                    "subjects' share (all other routers).",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Where in the sampling the subjects begin to act: 0 is the start, 1 the end.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Where in the sampling the subjects stop acting: 0 is the start, 1 the end.",
                ),
                io.Combo.Input(
                    "router",
                    options=["automatic", "learned", *ROUTERS, *PRESETS],
                    default="automatic",
                    optional=True,
                    tooltip="Decides where each subject appears. learned: where the adapter's trained routers place it. attention: "
                    "where the model attends to its word. mask: in its region, from Subject Settings (MoA). constant: at every pixel, "
                    "as with an ordinary IP-Adapter. automatic: learned if the adapter has routers, otherwise attention. IPAdapter_plus: "
                    "constant as in that extension, for the same pictures; it leaves out the middle block, which the last choice includes.",
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
                    tooltip="The number of pixels of a layer for which the personalised branch is computed; the others keep the base "
                    "model's result. automatic: as many as the router gives to subjects, measured while sampling. all: exact, "
                    "but slower. 1/2, 1/4, 1/8: a fixed fraction, for compiled models.",
                ),
                io.Boolean.Input(
                    "keep_background",
                    default=False,
                    optional=True,
                    tooltip="Outside the subjects, the latents stay exactly the base model's own. The sampler samples twice: first without the "
                    "subjects, then with them, with one row more in each step for every prompt with subjects. Usually this takes two and a "
                    "half times as long.",
                ),
                io.Float.Input(
                    "subject_guidance",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Only with keep_background. It multiplies the change that subjects make. 1: their guidance is the sampler's cfg, "
                    "as without keep_background. Higher: more of the subject.",
                ),
                io.Boolean.Input(
                    "live_map",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="While sampling, this node shows the router's map of the first picture: dark blue is the base model, pale "
                    "yellow the subjects. Each step then waits once for the graphics card.",
                ),
                io.Combo.Input(
                    "negative_image",
                    options=list(NEGATIVE_IMAGES),
                    default=AS_PUBLISHED,
                    optional=True,
                    advanced=True,
                    tooltip="Only for IP-Adapters: what the negative prompt gets where the prompt has the subject. as published: an empty "
                    "picture. none: nothing; guidance then makes subjects stronger.",
                ),
                SubjectSocket.Input(
                    "negative_subject",
                    optional=True,
                    tooltip="Only for IP-Adapters: a subject whose picture the negative prompt gets in place of the empty one. Its word does not matter.",
                ),
                io.Float.Input(
                    "faceid_lora",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Only for FaceID files: the strength of the LoRA in the file, which acts on the subject's pixels; with the router "
                    "IPAdapter_plus, as there, on the whole model. Use 0 if a LoRA loader applies it to the model.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler."),
                TraceSocket.Output(
                    display_name="trace", tooltip="For Visualize MoA Router. Sampling with this model fills it."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        adapter: LoadedAdapter,
        strength: float,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        router: str = "automatic",
        layer_strength: LayerStrength | None = None,
        pixels: str = "automatic",
        keep_background: bool = False,
        subject_guidance: float = 1.0,
        live_map: bool = False,
        negative_image: str = AS_PUBLISHED,
        negative_subject: Subject | None = None,
        faceid_lora: float = 1.0,
    ) -> io.NodeOutput:
        layers = adapter.patcher.model.config.layers
        lora, lora_on_model = (0.0, faceid_lora * (strength > 0)) if router in PRESETS else (faceid_lora, 0.0)
        factors = layer_factors(adapter, layer_strength, PRESETS.get(router, 1.0), lora)
        trace, node_text = Trace(layers), NodeText()

        def notify(text: str) -> None:
            trace.note = "\n".join(filter(None, (text, recommendation(adapter, strength, start_percent, end_percent))))
            node_text.show(trace.note)

        patched = apply_adapter(
            model,
            adapter.patcher,
            encoder=adapter.encoder,
            prior_bias=bias_from_strength(strength),
            start=start_percent,
            end=end_percent,
            router=choose_router(router, adapter),
            layer_strength=factors,
            lora_strength=lora,
            lora_on_model=lora_on_model,
            budget=ALL if router in PRESETS else BUDGETS[pixels](),
            guidance=SubjectGuidance(subject_guidance, layers) if keep_background else None,
            negative_image=NegativeImage(negative_image, fitting_negative(adapter, negative_subject)),
            observers=[trace, LiveMap()] if live_map else [trace],
            notify=notify,
        )
        return io.NodeOutput(patched, trace)
