"""Random adapters, prompts with subjects and the comparisons that host tests share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import host
import torch
from comfyui_moa.moa_attention.adapters.moa import MoAAdapter
from comfyui_moa.moa_attention.method.layer import Observe
from comfyui_moa.moa_attention.method.spec import EMBEDDED_ENCODER, MoAConfig
from comfyui_moa.moa_attention.run.listener import CallInfo, RunListener
from comfyui_moa.nodes.host.files import adapters
from comfyui_moa.nodes.host.model import patch
from comfyui_moa.nodes.host.model.unet import attention_layers, unet_of
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.sockets import LoadedAdapter, Subject, SubjectSettings
from torch import Tensor, nn

FEATURE = 24
"""Width of the image features of these adapters."""
ENCODER = "features of the tests"
NO_SETTINGS = SubjectSettings()


@dataclass
class Family:
    """A tiny base model, its adapter, and prompts that fit it."""

    name: str
    model: Any
    context: int
    pooled: int | None
    adapter: LoadedAdapter

    def prompt(
        self,
        seed: int = 1,
        subjects: Mapping[int, int] | None = None,
        tokens: int = 77,
        settings: SubjectSettings = NO_SETTINGS,
    ) -> host.Conditioning:
        """A CONDITIONING; `subjects` maps a token's position to the seed of the picture bound to it."""
        [[context, extra]] = host.conditioning(self.context, tokens=tokens, pooled=self.pooled, seed=seed)
        if not subjects:
            return [[context, extra]]
        bindings = [Binding(Subject("man", 1, picture(s), ENCODER, settings), p) for p, s in subjects.items()]
        return [with_subjects(context, extra, bindings)]

    def sample(
        self, model: Any, positive: Any, negative: Any = None, size: tuple[int, ...] = (8, 8), **options
    ) -> Tensor:
        """Two steps on a small latent; `size` is (h, w) or (h, w, batch)."""
        negative = self.prompt(seed=2) if negative is None else negative
        return host.sample(model, positive, negative, host.empty_latent(*size), **options)

    def attach(self, model: Any = None, adapter: LoadedAdapter | None = None, **options: Any) -> Any:
        chosen = self.adapter if adapter is None else adapter
        model = self.model if model is None else model
        return patch.apply_adapter(model, chosen.patcher, encoder=chosen.encoder, **options)


def picture(seed: int) -> Tensor:
    """(1, FEATURE), as an encoder would give for a picture."""
    return torch.randn(1, FEATURE, generator=torch.Generator().manual_seed(seed))


def attentions(model: Any) -> dict[str, nn.Module]:
    unet = unet_of(model.model)
    return {layer.spec.name: unet.get_submodule(layer.path) for layer in attention_layers(unet)}


def make_config(
    model: Any, context: int, base: str = "test", image_encoder: str = EMBEDDED_ENCODER, **options: Any
) -> MoAConfig:
    specs = tuple(layer.spec for layer in attention_layers(unet_of(model.model)))
    return MoAConfig(base, specs, context, image_encoder, FEATURE, **options)


def make_adapter(model: Any, context: int, *, fresh: bool = False, seed: int = 5, **options: Any) -> LoadedAdapter:
    """An adapter for a model: untrained (`fresh`), or random in every weight."""

    module = MoAAdapter(make_config(model, context, **options), adapters.HOST)
    host.randomise(module, seed)
    if fresh:
        module.init_from(attentions(model))
    return LoadedAdapter(patch.host_patcher(module.eval().requires_grad_(False)), "test.safetensors", ENCODER)


def make_family(name: str, depth: int = host.SDXL_DEPTH) -> Family:
    """Args: depth: as of `host.sdxl_layout`."""
    if name == "sd15":
        model, context, pooled = host.sd15(), host.SD15_CONTEXT, None
    else:
        model, context, pooled = host.sdxl(depth=depth), host.SDXL_CONTEXT, host.SDXL_G
    return Family(name, model, context, pooled, make_adapter(model, context))


@contextmanager
def counted_calls(model: Any) -> Iterator[list[int]]:
    """The number of rows of every call of the U-Net inside the block."""
    rows: list[int] = []
    handle = model.model.diffusion_model.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        handle.remove()


@contextmanager
def one_by_one(model: Any) -> Iterator[None]:
    """Inside the block the host evaluates each conditioning by itself, as if memory were short."""
    model.model.memory_required = lambda *_args, **_options: float("inf")
    try:
        yield
    finally:
        del model.model.memory_required


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, in standard deviations of the first."""
    return float((a - b).abs().max() / a.std())


def rms_difference(a: Tensor, b: Tensor) -> float:
    """The root of the mean square of the difference, in standard deviations of the first."""
    return float((a - b).square().mean().sqrt() / a.std())


def first(output: Any) -> Any:
    """The first result of a node of either API."""
    return output[0] if isinstance(output, tuple) else output.result[0]


class Recorder(RunListener):
    """Passes the routing of every layer to a function."""

    def __init__(self, observe: Observe):
        self.observe = observe

    def begin_call(self, call: CallInfo) -> Observe:
        return self.observe
