"""Random adapters, prompts with subjects and the comparisons that host tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import host
import torch
from torch import Tensor, nn

from devtools.in_process import import_pack

import_pack()
from comfyui_moa.moa_attention.adapter import MoAAdapter  # noqa: E402
from comfyui_moa.moa_attention.config import EMBEDDED_ENCODER, MoAConfig  # noqa: E402
from comfyui_moa.nodes import layers, patch, text  # noqa: E402
from comfyui_moa.nodes.sockets import Adapter, Subject  # noqa: E402

FEATURE = 24
"""Width of the image features of these adapters."""
ENCODER = "features of the tests"


@dataclass
class Family:
    """A tiny base model, its adapter, and prompts that fit it."""

    name: str
    model: Any
    context: int
    pooled: int | None
    adapter: Adapter

    def prompt(self, seed: int = 1, subjects: Mapping[int, int] | None = None, tokens: int = 77) -> host.Conditioning:
        """A CONDITIONING; `subjects` maps a token's position to the seed of the picture that takes its place."""
        [[context, extra]] = host.conditioning(self.context, tokens=tokens, pooled=self.pooled, seed=seed)
        if not subjects:
            return [[context, extra]]
        bindings = [text.Binding(Subject("man", 1, picture(s), ENCODER), p) for p, s in subjects.items()]
        return [[context, {**extra, **text.payload(context, extra, bindings)}]]

    def sample(
        self, model: Any, positive: Any, negative: Any = None, size: tuple[int, ...] = (8, 8), **options
    ) -> Tensor:
        """Two steps on a small latent; `size` is (h, w) or (h, w, batch)."""
        negative = self.prompt(seed=2) if negative is None else negative
        return host.sample(model, positive, negative, host.empty_latent(*size), **options)

    def attach(self, model: Any = None, adapter: Adapter | None = None, **options: Any) -> Any:
        chosen = self.adapter if adapter is None else adapter
        model = self.model if model is None else model
        return patch.apply_adapter(model, chosen.patcher, encoder=chosen.encoder, **options)


def picture(seed: int) -> Tensor:
    """(1, FEATURE), what an encoder would have made of a picture."""
    return torch.randn(1, FEATURE, generator=torch.Generator().manual_seed(seed))


def attentions(model: Any) -> dict[str, nn.Module]:
    unet = layers.unet_of(model.model)
    return {layer.spec.name: unet.get_submodule(layer.path) for layer in layers.attention_layers(unet)}


def make_config(
    model: Any, context: int, base: str = "test", image_encoder: str = EMBEDDED_ENCODER, **options: Any
) -> MoAConfig:
    specs = tuple(layer.spec for layer in layers.attention_layers(layers.unet_of(model.model)))
    return MoAConfig(base, specs, context, image_encoder, FEATURE, **options)


def make_adapter(model: Any, context: int, *, fresh: bool = False, seed: int = 5, **options: Any) -> Adapter:
    """An adapter for a model: untrained (`fresh`), or random in every weight."""
    import comfy.ops

    module = MoAAdapter(make_config(model, context, **options), operations=comfy.ops.manual_cast)
    host.randomise(module, seed)
    if fresh:
        module.init_from(attentions(model))
    return Adapter(patch.host_patcher(module.eval().requires_grad_(False)), "test.safetensors", ENCODER)


def make_family(name: str) -> Family:
    if name == "sd15":
        model, context, pooled = host.sd15(), host.SD15_CONTEXT, None
    else:
        model, context, pooled = host.sdxl(), host.SDXL_CONTEXT, host.SDXL_G
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
    """Inside the block the host believes that no two conditionings fit into memory together."""
    model.model.memory_required = lambda *_args, **_options: float("inf")
    try:
        yield
    finally:
        del model.model.memory_required


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, in standard deviations of the first."""
    return float((a - b).abs().max() / a.std())


def first(output: Any) -> Any:
    """The first result of a node of either API."""
    return output[0] if isinstance(output, tuple) else output.result[0]


def silent(_sigma: Tensor, _images: Tensor) -> Callable:
    """A recorder for `call_with_subjects` that looks away."""
    return lambda _spec, _routing: None
