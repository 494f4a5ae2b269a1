"""The host's own nodes that change prompts and latents."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import controls
import files
import torch
from scene import NEGATIVE, TEXT, Inputs, Neighbour, Scene
from schemas import call
from torch import Tensor


def node_class(name: str) -> Any:
    """A node by its id."""
    return importlib.import_module("nodes").NODE_CLASS_MAPPINGS[name]


def node(name: str, *outputs: int, **arguments: Any) -> Any:
    """Results of a node of the host by its id; the first if no numbers are given."""
    found = call(node_class(name), arguments)
    return found[outputs[0] if outputs else 0] if len(outputs) < 2 else [found[i] for i in outputs]


def picture(inputs: Inputs) -> Tensor:
    """A picture of the latents' size, (1,H,W,3)."""
    height, width = (8 * side for side in inputs.latent["samples"].shape[-2:])
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(2))


def left_half(inputs: Inputs) -> Tensor:
    """A mask (1,H,W)."""
    mask = torch.zeros_like(picture(inputs)[..., 0])
    mask[..., : mask.shape[-1] // 2] = 1
    return mask


def on_positive(change: Callable[[Scene, Inputs, Any], Any]) -> Callable[[Scene, Inputs], Inputs]:
    """A neighbour that changes the positive prompt."""
    return lambda scene, inputs: replace(inputs, positive=change(scene, inputs, inputs.positive))


def joined(*prompts: Any) -> Any:
    """Prompts side by side, as Conditioning (Combine) joins them."""
    return [entry for prompt in prompts for entry in prompt]


def second_prompt(scene: Scene) -> Any:
    return scene.encode("a lake")


def area(scene: Scene, inputs: Inputs, prompt: Any) -> Any:
    part = {"width": 0.5, "height": 1.0, "x": 0.5, "y": 0.0, "strength": 1.0}
    return joined(node("ConditioningSetAreaPercentage", conditioning=prompt, **part), second_prompt(scene))


def masked(scene: Scene, inputs: Inputs, prompt: Any) -> Any:
    given = {"mask": left_half(inputs), "set_cond_area": "default", "strength": 0.8}
    return joined(node("ConditioningSetMask", conditioning=prompt, **given), second_prompt(scene))


def ranged(scene: Scene, inputs: Inputs, prompt: Any) -> Any:
    parts = ((prompt, 0.0, 0.5), (second_prompt(scene), 0.5, 1.0))
    return joined(*(node("ConditioningSetTimestepRange", conditioning=c, start=s, end=e) for c, s, e in parts))


def with_hook_lora(scene: Scene, inputs: Inputs, prompt: Any, mask: bool = False, keyframes: bool = False) -> Any:
    """A LoRA on a prompt alone, perhaps in a mask, perhaps at half of its strength from the middle on."""
    hooks = node("CreateHookLoraModelOnly", lora_name=files.lora_file(scene).name, strength_model=1.0)
    if keyframes:
        frames = node("CreateHookKeyframe", strength_mult=0.5, start_percent=0.5)
        hooks = node("SetHookKeyframes", hooks=hooks, hook_kf=frames)
    if not mask:
        return node("ConditioningSetProperties", cond_NEW=prompt, strength=1.0, set_cond_area="default", hooks=hooks)
    half = {"strength": 1.0, "set_cond_area": "default", "mask": left_half(inputs), "hooks": hooks}
    return joined(node("ConditioningSetProperties", cond_NEW=prompt, **half), second_prompt(scene))


def text_lora(scene: Scene, inputs: Inputs) -> Inputs:
    """A LoRA of the text encoder: both prompts are encoded anew with it."""
    loaded = {"lora_name": files.lora_file(scene).name, "strength_model": 0.0, "strength_clip": 2.0}
    clip = node("LoraLoader", 1, model=inputs.model, clip=scene.clip, **loaded)
    subject = type(inputs.positive[0][0]) is not Tensor
    return replace(
        inputs, positive=scene.encode(TEXT, clip=clip, subject=subject), negative=scene.encode(NEGATIVE, clip=clip)
    )


def noise_mask(scene: Scene, inputs: Inputs) -> Inputs:
    """Inpainting with an ordinary model, of a latent with contents."""
    filled = {"samples": torch.randn(inputs.latent["samples"].shape, generator=torch.Generator().manual_seed(6))}
    return replace(inputs, latent=node("SetLatentNoiseMask", samples=filled, mask=left_half(inputs)))


def differential(scene: Scene, inputs: Inputs) -> Inputs:
    """A mask with values between 0 and 1, step by step."""
    inputs = noise_mask(scene, inputs)
    ramp = torch.linspace(0, 1, left_half(inputs).shape[-1]).expand_as(left_half(inputs))
    latent = {**inputs.latent, "noise_mask": ramp.clone()}
    return replace(inputs, model=node("DifferentialDiffusion", model=inputs.model), latent=latent)


def controlled(nets: Callable[[Scene], list[Any]]) -> Callable[[Scene, Inputs], Inputs]:
    """ControlNets and T2I-Adapters, one after another."""

    def apply(scene: Scene, inputs: Inputs) -> Inputs:
        both = inputs.positive, inputs.negative
        for net in nets(scene):
            given = {
                "control_net": net,
                "image": picture(inputs),
                "strength": 0.8,
                "start_percent": 0.0,
                "end_percent": 1.0,
            }
            both = node("ControlNetApplyAdvanced", 0, 1, positive=both[0], negative=both[1], **given)
        return replace(inputs, positive=both[0], negative=both[1])

    return apply


def boxed(scene: Scene, inputs: Inputs, prompt: Any) -> Any:
    """GLIGEN with one box."""
    box = {"text": "a dog", "width": 64, "height": 64, "x": 64, "y": 0}
    return node(
        "GLIGENTextBoxApply",
        conditioning_to=prompt,
        clip=scene.clip,
        gligen_textbox_model=controls.gligen(scene.family),
        **box,
    )


NEIGHBOURS = {
    "Conditioning (Set Area)": on_positive(area),
    "Conditioning (Set Mask)": on_positive(masked),
    "Conditioning (Set Timestep Range)": on_positive(ranged),
    "hook LoRA": on_positive(with_hook_lora),
    "hook LoRA in a mask": on_positive(partial(with_hook_lora, mask=True)),
    "hook LoRA with keyframes": on_positive(partial(with_hook_lora, keyframes=True)),
    "LoRA of the text encoder": text_lora,
    "Set Latent Noise Mask": noise_mask,
    "Differential Diffusion": differential,
    "ControlNet": controlled(lambda scene: [controls.control_net(scene.family)]),
    "two ControlNets": controlled(lambda scene: [controls.control_net(scene.family, seed) for seed in (9, 12)]),
    "T2I-Adapter": controlled(lambda scene: [controls.t2i_adapter(scene.family)]),
    "GLIGEN": on_positive(boxed),
}
SD15_ONLY = {"GLIGEN": "GLIGEN exists for SD1.5 only"}


def host_prompts() -> Iterator[Neighbour]:
    """On prompts and latents."""
    for name, apply in NEIGHBOURS.items():
        yield Neighbour(name, apply, on_model=False, missing={"sdxl": SD15_ONLY[name]} if name in SD15_ONLY else {})
