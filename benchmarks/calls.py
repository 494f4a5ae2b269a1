"""One call of the U-Net as a sampler makes it at every step, with all wrappers and patches and without the sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import comfy.model_management
import torch
from torch import Tensor

from ..nodes.text import BARRED, FEATURES, PROMPT, REGION, SLOTS, TERMS
from .bases import FEATURE, Pair

TOKENS = 77
WIDTHS = {"sd15": 768, "sdxl": 2048}
"""Of the text encoders' output, T."""
SIZE_CONDITION = 2816
"""Width of SDXL's pooled text and picture sizes."""


@dataclass(frozen=True)
class Given:
    """What a sampler hands to the host for one step: a row of each prompt, the negative one first where there is guidance."""

    x: Tensor
    """(B,4,h,w)"""
    sigma: Tensor
    """(B,)"""
    contexts: list[Tensor]
    """(1,M,T) of each row."""
    size: Tensor | None
    """(B,2816), SDXL only."""
    carried: dict[str, list[Tensor]]
    """What each row carries for us, on the CPU: see `nodes.text.PAYLOAD`. Empty where nobody is meant."""
    prompts: list[int]
    """The host's `cond_or_uncond`: 0 positive, 1 negative."""
    uuids: list[Any]
    """By which the host tells prompts apart."""


def given(pair: Pair, side: int, cfg: bool, subjects: int, seed: int = 0) -> Given:
    """Random inputs for pictures of `side` pixels, with `subjects` in the positive row; another seed is another prompt."""
    generator, rows = torch.Generator().manual_seed(seed), 2 if cfg else 1

    def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        if pair.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device=pair.device)
        return torch.randn(shape, generator=generator).to(pair.device, dtype)

    prompts = [1, 0] if cfg else [0]
    positive, negative = row(subjects, subjects, 1 + seed, generator), row(0, subjects, 0, generator)
    carried = [negative if prompt else positive for prompt in prompts] if subjects else []
    return Given(
        x=noise(rows, 4, side // 8, side // 8),
        sigma=torch.ones(rows, device=pair.device),
        contexts=[noise(1, TOKENS, WIDTHS[pair.base], dtype=pair.dtype) for _ in prompts],
        size=noise(rows, SIZE_CONDITION, dtype=pair.dtype) if pair.base == "sdxl" else None,
        carried={name: [one[name] for one in carried] for name in carried[0]} if carried else {},
        prompts=prompts,
        uuids=[uuid4() for _ in prompts],
    )


def row(present: int, of: int, number: int, generator: torch.Generator) -> dict[str, Tensor]:
    """What one row carries: `present` subjects on tokens of their own, padded to as many as the other rows have.

    Args: number: of its prompt, see `nodes.text.PROMPT`.
    """
    slots, features = torch.zeros(1, TOKENS, 1), torch.zeros(1, of, FEATURE)
    slots[0, 2 : 2 + present, 0] = torch.arange(1, present + 1)
    features[:, :present] = torch.randn(1, present, FEATURE, generator=generator)
    return {
        SLOTS: slots,
        FEATURES: features,
        TERMS: torch.zeros(1, of, 3),
        BARRED: torch.zeros(1, of, REGION, REGION),
        PROMPT: torch.tensor([[float(number)]]),
    }


def load(patched: Any) -> None:
    """Let the host bring a model and what was added to it to where it computes."""
    comfy.model_management.load_models_gpu([patched, *patched.get_nested_additional_models()])


def call(patched: Any, step: Given, attention: Callable[..., Tensor] | None = None) -> Tensor:
    """Denoise once: -> (B,4,h,w). Rows are joined anew, as the host does at every step.

    Args: attention: in the place of the host's kernel.
    """
    base = patched.model
    base.current_patcher = patched
    options = {
        **patched.model_options["transformer_options"],
        "wrappers": patched.wrappers,
        "cond_or_uncond": step.prompts,
        "uuids": step.uuids,
        "sigmas": step.sigma[:1],
    }
    if attention is not None:
        options["optimized_attention_override"] = attention
    rows = {name: torch.cat(parts) for name, parts in step.carried.items()}
    if step.size is not None:
        rows["y"] = step.size
    return base.apply_model(
        step.x, step.sigma, c_crossattn=torch.cat(step.contexts), transformer_options=options, **rows
    )


def denoise(patched: Any, step: Given, attention: Callable[..., Tensor] | None = None) -> None:
    """Call as samplers do, for what it costs."""
    with torch.inference_mode():
        call(patched, step, attention)
