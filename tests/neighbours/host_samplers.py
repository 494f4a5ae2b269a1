"""The host's own samplers and guiders, special base models, and the forms in which it holds a model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import host
import torch
from host_prompts import left_half, node, picture
from scene import Inputs, Neighbour, Scene
from torch import Tensor

Guider = Callable[[Scene, Inputs], Any]


def guided(guider: Guider, scene: Scene, inputs: Inputs) -> Tensor:
    """Sampled with one of the host's guiders."""
    sampling = importlib.import_module("comfy_extras.nodes_custom_sampler")
    sigmas = node("BasicScheduler", model=inputs.model, scheduler="normal", steps=2, denoise=1.0)
    noise, sampler = sampling.Noise_RandomNoise(0), comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        return sampling.SamplerCustomAdvanced.execute(
            noise, guider(scene, inputs), sampler, sigmas, inputs.latent
        ).result[0]["samples"]


def dual(scene: Scene, inputs: Inputs) -> Any:
    """Guidance towards two prompts, of which the first has the subject."""
    given = {"cond1": inputs.positive, "cond2": scene.encode("a lake"), "negative": inputs.negative}
    return node("DualCFGGuider", model=inputs.model, **given, cfg_conds=4.0, cfg_cond2_negative=3.0, style="regular")


def two_models(scene: Scene, inputs: Inputs) -> Any:
    """The negative prompt with another model."""
    given = {"positive": inputs.positive, "negative": inputs.negative, "model_negative": scene.other, "cfg": 4.0}
    return node("DualModelGuider", model=inputs.model, **given)


def perpendicular(scene: Scene, inputs: Inputs) -> Any:
    given = {"positive": inputs.positive, "negative": inputs.negative, "empty_conditioning": scene.encode("")}
    return node("PerpNegGuider", model=inputs.model, **given, cfg=5.0, neg_scale=1.0)


def unguided(scene: Scene, inputs: Inputs) -> Any:
    return node("BasicGuider", model=inputs.model, conditioning=inputs.positive)


GUIDERS: dict[str, Guider] = {
    "BasicGuider": unguided, "DualCFGGuider": dual, "DualModelGuider": two_models, "PerpNegGuider": perpendicular,
}  # fmt: skip


def in_8_bits(scene: Scene, inputs: Inputs) -> Inputs:
    """The base model with weights in 8 bits, computed in 32."""
    family, unet = type(scene.family.model.model.model_config), scene.family.model.model
    layout = (
        host.sd15_layout(32, host.SD15_CONTEXT)
        if scene.family.name == "sd15"
        else host.sdxl_layout(32, host.SDXL_CONTEXT, host.SDXL_G, scene.depth)
    )
    model = host.build(family, layout, dtype=torch.float8_e4m3fn, compute=torch.float32)
    weights = unet.diffusion_model.state_dict()
    model.diffusion_model.load_state_dict({name: w.to(torch.float8_e4m3fn) for name, w in weights.items()})
    device = comfy.model_management.get_torch_device()
    return replace(inputs, model=comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device))


def with_more_channels(channels: int, prepare: Callable[[Inputs, Any], Inputs], scene: Scene, inputs: Inputs) -> Inputs:
    """A base model for inpainting or editing, whose U-Net takes a picture beside the latents."""
    family = comfy.supported_models.SD15 if channels == 9 else comfy.supported_models.SD15_instructpix2pix
    model = host.patcher(family, host.sd15_layout(32, host.SD15_CONTEXT, channels), 0)
    return prepare(replace(inputs, model=model), scene.vae)


def inpainted(inputs: Inputs, vae: Any) -> Inputs:
    given = {
        "positive": inputs.positive,
        "negative": inputs.negative,
        "vae": vae,
        "pixels": picture(inputs),
        "mask": left_half(inputs),
    }
    positive, negative, latent = node("InpaintModelConditioning", 0, 1, 2, **given, noise_mask=True)
    return replace(inputs, positive=positive, negative=negative, latent=latent)


def edited(inputs: Inputs, vae: Any) -> Inputs:
    given = {"positive": inputs.positive, "negative": inputs.negative, "vae": vae, "pixels": picture(inputs)}
    positive, negative, latent = node("InstructPixToPixConditioning", 0, 1, 2, **given)
    return replace(inputs, positive=positive, negative=negative, latent=latent)


FORMS: dict[str, Any] = {
    "weights in fp8": in_8_bits,
    "inpainting model": partial(with_more_channels, 9, inpainted),
    "InstructPix2Pix model": partial(with_more_channels, 8, edited),
}
SD15_ONLY = ("inpainting model", "InstructPix2Pix model")


def host_samplers() -> Iterator[Neighbour]:
    """Samplers, guiders and forms of the base model."""
    for name, guider in GUIDERS.items():
        yield Neighbour(name, on_model=False, compared=False, sample=partial(guided, guider))
    for name, apply in FORMS.items():
        missing = {"sdxl": "only made for SD1.5 here"} if name in SD15_ONLY else {}
        yield Neighbour(name, apply, on_model=False, missing=missing)
    for name in comfy.samplers.KSampler.SAMPLERS:
        options = {"steps": 3, "sampler": name}
        neighbour = Neighbour(f"sampler {name}", on_model=False, compared=False, size=(8, 8, 1), options=options)
        yield replace(neighbour, missing={"sdxl": "a sampler does not depend on the architecture"})
