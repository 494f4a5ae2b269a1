"""IP-Adapter-plus as it is commonly attached, for comparison, written from its formula (arXiv 2308.06721, eq. 5).

    out = Attention(q, W_k text, W_v text) + weight · Attention(q, W_k' image, W_v' image)      in every cross-attention

As in the widely used packs, it takes the host's replace slot, projects the image tokens of both halves at every step, and
compares the noise level with its window in every layer, a read that waits for the device each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ..moa_attention.method.spec import LayerSpec
from ..nodes.host.model.unet import attention_layers, unet_of

IMAGE_TOKENS = 16


class ImagePrompts(nn.Module):
    """W_k' and W_v' of every cross-attention layer, and the image tokens of a picture and of an empty one."""

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype):
        super().__init__()
        specs = [layer.spec for layer in attention_layers(unet_of(model.model)) if layer.spec.is_cross]
        place: dict[str, Any] = {"bias": False, "device": device, "dtype": dtype}
        self.specs = specs
        self.to_k = nn.ModuleDict({s.name: nn.Linear(s.context, s.hidden, **place) for s in specs})
        self.to_v = nn.ModuleDict({s.name: nn.Linear(s.context, s.hidden, **place) for s in specs})
        for name in ("picture", "nothing"):
            self.register_buffer(name, torch.zeros(1, IMAGE_TOKENS, specs[0].context, device=device, dtype=dtype))
        self.requires_grad_(False)


def attach_image_prompts(
    model: Any, prompts: ImagePrompts, weight: float = 1.0, window: tuple[float, float] = (1e9, 0.0)
) -> Any:
    """A clone of the model with an image prompt in every cross-attention.

    Args: window: noise levels between which it is active, the higher one first.
    """
    model = model.clone()
    for spec in prompts.specs:
        stage, number, index = spec.name.removesuffix("_attn2").split("_")
        model.set_model_attn2_replace(replacement(prompts, spec, weight, window), stage, int(number), int(index))
    return model


def replacement(
    prompts: ImagePrompts, spec: LayerSpec, weight: float, window: tuple[float, float]
) -> Callable[[Tensor, Tensor, Tensor, dict], Tensor]:
    """Replaces one layer's attention: q (B,N,D), k and v (B,M,D) of the text -> (B,N,D)."""
    to_k, to_v = prompts.to_k[spec.name], prompts.to_v[spec.name]

    def attention(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        def attend(k: Tensor, v: Tensor) -> Tensor:
            return optimized_attention(q, k, v, spec.heads, transformer_options=options)

        text = attend(k, v)
        if not window[1] < float(options["sigmas"][0]) <= window[0]:
            return text
        batch = len(q) // len(options["cond_or_uncond"])

        def rows(project: nn.Module) -> Tensor:
            halves = [project(image).expand(batch, -1, -1) for image in (prompts.picture, prompts.nothing)]
            return torch.cat([halves[which] for which in options["cond_or_uncond"]])

        return text + weight * attend(rows(to_k), rows(to_v))

    return attention
