"""Other extensions: their nodes on models and their samplers, found by their schemas, and what needs more than a schema."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import bases
import controls
import files
import torch
from host_models import Setting, on_models
from host_prompts import left_half, node, node_class, picture
from scene import Inputs, Neighbour, Scene
from schemas import apply_node, sample_with, sampler_nodes

SAMPLING = {
    "steps": 2,
    "cfg": 5.0,
    "denoise": 1.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "vae_decode": "false",
}
"""Settings of a node that samples, where it has them."""
TILES = {"tile_width": 64, "tile_height": 64, "tile_overlap": 16}
SETTINGS: dict[str, Setting] = {
    "ApplyLBW //Inspire": Setting(),
    "CFGZeroStarAndInit": Setting({"use_zero_init": False}),
    "HyperTile //Inspire": Setting({"tile_size": 32, "max_depth": 1}),
    "LoraLoaderBlockWeight //Inspire": Setting(files.lora),
    "SlidingWindowGuidanceAdvanced": Setting(TILES),
    "TiledDiffusion": Setting({**TILES, "method": "MultiDiffusion"}),
}


def pack_neighbours(pack: str, nodes: Mapping[str, Any]) -> Iterator[Neighbour]:
    """Args: nodes: those of this extension alone."""
    yield from SPECIAL.get(pack, ())
    for name in sampler_nodes(nodes):
        sample = partial(sample_for, nodes[name])
        yield Neighbour(name, on_model=False, compared=False, sample=sample)
    kept = {name: each for name, each in nodes.items() if name not in LEFT_OUT and not name.startswith(COMPILERS)}
    yield from on_models(kept, SETTINGS)


def sample_for(sampler: Any, scene: Scene, inputs: Inputs) -> torch.Tensor:
    """Sampled with another extension's sampler."""
    known = sampler.INPUT_TYPES()["required"]
    given = {name: value for name, value in {**SAMPLING, **TILED, **segments(sampler, inputs)}.items() if name in known}
    return sample_with(sampler, scene, inputs, given)


TILED = {
    "tile_width": 64,
    "tile_height": 64,
    "tile_padding": 8,
    "mask_blur": 0,
    "upscale_by": 1.0,
    "guide_size": 64.0,
    "max_size": 128.0,
}
"""Sizes in pixels of upscalers and detailers."""


def segments(sampler: Any, inputs: Inputs) -> dict[str, Any]:
    """One face for a detailer: the middle of the picture."""
    if "segs" not in sampler.INPUT_TYPES()["required"]:
        return {}
    core = importlib.import_module("impact.core")
    height, width = picture(inputs).shape[1:3]
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    mask = torch.ones(box[3] - box[1], box[2] - box[0]).numpy()
    return {"segs": ((height, width), [core.SEG(None, mask, 1.0, box, box, "face", None)])}


def with_node(name: str, given: Callable[[Scene, Inputs], dict[str, Any]]) -> Callable[[Scene, Inputs], Inputs]:
    """A node on a model whose other inputs depend on the run."""
    return lambda scene, inputs: apply_node(node_class(name), scene, inputs, given(scene, inputs))


def couple(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """Two prompts side by side in the attention: the first, with the subject, on the left."""
    half = left_half(inputs)
    return {"base_cond": inputs.positive, "base_mask": half, "cond_1": scene.encode("a lake"), "mask_1": 1 - half}


def couple_without_base(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """The same for a node that takes the first prompt from the sampler."""
    return {name: value for name, value in couple(scene, inputs).items() if name != "base_cond"}


def krita_regions(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """Regions of Krita's plug-in: the subject's prompt as the background, another on the right half."""
    regions = node("ETN_BackgroundRegion", conditioning=inputs.positive)
    return {
        "regions": node(
            "ETN_DefineRegion", mask=1 - left_half(inputs), conditioning=scene.encode("a lake"), regions=regions
        )
    }


def image_prompt(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """An IP-Adapter of random weights and its picture."""
    return {"ipadapter": bases.ip_adapter(scene), "image": picture(inputs), "clip_vision": bases.clip_vision()}


def reference(scene: Scene, inputs: Inputs) -> Inputs:
    """A reference picture whose attention is added to that of the positive prompt."""
    net = node("ACN_ReferenceControlNet", reference_type="reference_attn", style_fidelity=0.5, ref_weight=1.0)
    image = node("ACN_ReferencePreprocessor", image=picture(inputs), vae=scene.vae, latent_size=inputs.latent)
    given = {"control_net": net, "image": image, "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    positive, negative = node(
        "ACN_AdvancedControlNetApply_v2", 0, 1, positive=inputs.positive, negative=inputs.negative, **given
    )
    return replace(inputs, positive=positive, negative=negative)


def advanced_control(scene: Scene, inputs: Inputs) -> Inputs:
    """A ControlNet in a mask, as this extension applies it."""
    given = {
        "control_net": controls.control_net(scene.family),
        "image": picture(inputs),
        "strength": 0.8,
        "mask_optional": left_half(inputs),
    }
    given |= {"start_percent": 0.0, "end_percent": 1.0}
    positive, negative = node(
        "ACN_AdvancedControlNetApply_v2", 0, 1, positive=inputs.positive, negative=inputs.negative, **given
    )
    return replace(inputs, positive=positive, negative=negative)


def contexts(scene: Scene, inputs: Inputs) -> dict[str, Any]:
    """Windows of two frames."""
    return {"context_options": node("ADE_StandardStaticContextOptions", context_length=2, context_overlap=1)}


def scheduled_lora(scene: Scene, inputs: Inputs) -> Inputs:
    """A LoRA that a text switches off in the middle: hooks on the text encoder, with which both prompts are encoded anew."""
    hooks = node("PCLoraHooksFromText", text=f"[<lora:{files.lora_file(scene).stem}:1>::0.5]")
    clip = node("SetClipHooks", clip=scene.clip, apply_to_conds=True, schedule_clip=False, hooks=hooks)
    return bases.encoded_anew(scene, inputs, clip)


def pipe(scene: Scene, inputs: Inputs) -> torch.Tensor:
    """The sampler of a pipe."""
    sampler = node_class("ImpactKSamplerBasicPipe")
    given = {"basic_pipe": (inputs.model, scene.clip, scene.vae, inputs.positive, inputs.negative)}
    return sample_with(
        sampler, scene, inputs, {**given, "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal"}
    )


def on_prompts(name: str, apply: Callable[[Scene, Inputs], Inputs]) -> Neighbour:
    return Neighbour(name, apply, on_model=False)


def tiled(method: str) -> Neighbour:
    return Neighbour(f"TiledDiffusion, {method}", with_node("TiledDiffusion", lambda *_: {**TILES, "method": method}))


SPECIAL: dict[str, tuple[Neighbour, ...]] = {
    "cgem156-ComfyUI": (
        Neighbour("AttentionCouple|cgem156", with_node("AttentionCouple|cgem156", couple_without_base)),
    ),
    "ComfyUI_IPAdapter_plus": tuple(
        Neighbour(name, with_node(name, image_prompt)) for name in ("IPAdapterAdvanced", "IPAdapterTiled")
    ),
    "ComfyUI-Advanced-ControlNet": (
        on_prompts("Reference ControlNet", reference),
        on_prompts("ControlNet in a mask", advanced_control),
    ),
    "ComfyUI-AnimateDiff-Evolved": (
        Neighbour("ADE_UseEvolvedSampling", with_node("ADE_UseEvolvedSampling", contexts), size=(8, 8, 4)),
    ),
    "ComfyUI-GGUF": (on_prompts("a base model in Q8_0", bases.in_gguf),),
    "ComfyUI-IC-Light-Native": (Neighbour("ICLightAppply", with_node("ICLightAppply", bases.relit)),),
    "ComfyUI-Impact-Pack": (Neighbour("ImpactKSamplerBasicPipe", on_model=False, compared=False, sample=pipe),),
    "ComfyUI-ppm": (Neighbour("AttentionCouplePPM", with_node("AttentionCouplePPM", couple)),),
    "comfyui-prompt-control": (on_prompts("PCLoraHooksFromText", scheduled_lora),),
    "ComfyUI-TiledDiffusion": (tiled("Mixture of Diffusers"), tiled("SpotDiffusion")),
    "comfyui-tooling-nodes": (Neighbour("ETN_AttentionMask", with_node("ETN_AttentionMask", krita_regions)),),
}
LEFT_OUT = {each.name for group in SPECIAL.values() for each in group} | {
    "ImpactWildcardEncode",
    "IPAdapterModelHelper //Inspire",
    "Krea2PromptWeight",
}
"""What is run in a way of its own, a node that downloads files, and two that make a prompt of their own, which has no subject."""
COMPILERS = "TorchCompile"
"""How the names of nodes begin that compile, as of `groups.COMPILED`."""
