"""A tiny base model with its text encoder, autoencoder and adapter, and what goes into one of its sampling runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import comfy.sd
import comfy.taesd.taesd
import host
import subjects
from comfyui_moa.nodes.host.prompts.conditioning import encode_prompt
from comfyui_moa.nodes.sockets import Subject
from subjects import Family
from torch import Tensor

TEXT, NEGATIVE = "a photo of a man in a park", "blurry"


@dataclass(frozen=True)
class Inputs:
    """What a sampler gets."""

    model: Any
    positive: Any
    negative: Any
    latent: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    """Of the sampler: steps, its name and others."""


@dataclass
class Scene:
    """A base model and what belongs to it. Prompts are texts, so that nodes that encode them anew can take part."""

    family: Family
    clip: Any
    other: Any
    """A model of the same architecture with other weights."""
    depth: int = host.SDXL_DEPTH
    """Of SDXL, as of `host.sdxl_layout`."""
    pictures: dict[Any, Tensor] = field(default_factory=dict)
    """Sampled without a neighbour, by what they depend on."""

    @cached_property
    def vae(self) -> Any:
        """A small autoencoder of random weights."""
        net = comfy.taesd.taesd.TAESD()
        host.randomise(net)
        return comfy.sd.VAE(sd=net.state_dict())

    @property
    def subject(self) -> Subject:
        return Subject("man", 1, subjects.picture(11), subjects.ENCODER)

    def encode(self, text: str, *, clip: Any = None, subject: bool = False) -> Any:
        """A prompt, with the subject on its word."""
        return encode_prompt(clip or self.clip, text, [self.subject] if subject else [])[0]

    def inputs(self, size: tuple[int, int, int], subject: bool, options: dict[str, Any]) -> Inputs:
        """A run of the base model. Args: size: height, width and number of the latents."""
        positive, negative = self.encode(TEXT, subject=subject), self.encode(NEGATIVE)
        return Inputs(self.family.model, positive, negative, host.empty_latent(*size), options)

    def attach(self, inputs: Inputs, **options: Any) -> Inputs:
        """With MoA on the model."""
        return replace(inputs, model=self.family.attach(inputs.model, **options))


def make_scene(name: str, depth: int = host.SDXL_DEPTH) -> Scene:
    """Of "sd15" or "sdxl". Args: depth: of SDXL, as of `host.sdxl_layout`."""
    clip, other = (
        (host.sd15_clip(), host.sd15(seed=1)) if name == "sd15" else (host.sdxl_clip(), host.sdxl(seed=1, depth=depth))
    )
    return Scene(subjects.make_family(name, depth), clip, other, depth)


def sampled(scene: Scene, inputs: Inputs) -> Tensor:
    """With the host's KSampler."""
    del scene
    return host.sample(inputs.model, inputs.positive, inputs.negative, inputs.latent, **inputs.options)


@dataclass(frozen=True)
class Neighbour:
    """Another node beside Apply MoA."""

    name: str
    apply: Callable[[Scene, Inputs], Inputs] = lambda scene, inputs: inputs
    on_model: bool = True
    """Whether it changes the model, so that it has a place before or after Apply MoA."""
    sample: Callable[[Scene, Inputs], Tensor] = sampled
    compared: bool = True
    """Whether it must change the picture of the host's KSampler; samplers need not."""
    missing: dict[str, str] = field(default_factory=dict)
    """Names of base models that it does not have, with the reason."""
    size: tuple[int, int, int] = (16, 16, 1)
    """Height, width and number of the latents, at which it has an effect."""
    options: dict[str, Any] = field(default_factory=lambda: {"steps": 2})


def changed(before: Tensor, after: Tensor) -> float:
    """The root of the mean square of a change, in standard deviations of the first."""
    return float((after - before).square().mean().sqrt() / before.std())
