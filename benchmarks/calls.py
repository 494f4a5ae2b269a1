"""One call of the U-Net as a sampler makes it at every step: all wrappers and patches, no sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import comfy.model_management
import torch
from torch import Tensor

from ..nodes.host.model.prior_rows import PAIR
from ..nodes.host.model.views import payload_of_run
from ..nodes.host.prompts.payload_names import FIRST
from ..nodes.host.prompts.subject_regions import REGION
from .bases import FEATURE, Pair

TOKENS = 77
WIDTHS = {"sd15": 768, "sdxl": 2048}
"""Of the text encoders' output, T."""
SIZE_CONDITION = 2816
"""Width of SDXL's pooled text and picture sizes."""

POSITIVE, NEGATIVE, PRIOR = 0, 1, 2
"""The host's numbers of the prompts, and that of the positive one without subjects."""
PAIRS = {POSITIVE: 1.0, NEGATIVE: 0.0, PRIOR: -1.0}
"""See `nodes.host.model.prior_rows.PAIR`."""


@dataclass(frozen=True)
class StepInputs:
    """A sampler's inputs to the host for one step: a row of each prompt, the negative one first where there is guidance."""

    x: Tensor
    """(B,4,h,w)"""
    sigma: Tensor
    """(B,)"""
    contexts: list[Tensor]
    """(1,M,T) of each row."""
    size: Tensor | None
    """(B,2816), SDXL only."""
    payload: dict[str, list[Tensor]]
    """MoA's inputs of each row, on the CPU: see `nodes.host.model.subject_rows.Payload`. Empty without subjects."""
    prompts: list[int]
    """The host's `cond_or_uncond`."""
    uuids: list[Any]
    """The host's identities of the prompts."""


def random_inputs(
    pair: Pair,
    side: int,
    cfg: bool,
    subjects: int,
    seed: int = 0,
    prior_row: bool = False,
    negative_images: bool = False,
) -> StepInputs:
    """For pictures of `side` pixels, with `subjects` in the positive row; another seed is another prompt.

    Args:
        prior_row: with a row more, of the positive prompt without its subjects, as *keep background* adds it.
        negative_images: whether the negative prompt has as many subjects.
    """
    prompts = [*([PRIOR] if prior_row else []), *([NEGATIVE] if cfg else []), POSITIVE]
    generator, rows = torch.Generator().manual_seed(seed), len(prompts)

    def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        if pair.device.type == "meta":
            return torch.empty(shape, dtype=dtype, device=pair.device)
        return torch.randn(shape, generator=generator).to(pair.device, dtype)

    latents = (1, 4, side // 8, side // 8)
    width = pair.adapter.model.config.image_width
    positive = {**row_payload(subjects, subjects, 1 + seed, generator, width), **payload_of_run(latents)}
    others = (subjects, subjects, 1001 + seed) if negative_images else (0, subjects, 0)
    negative = {**row_payload(*others, generator, width), **payload_of_run(latents, prompt=1)}
    payload = [positive if prompt == POSITIVE else negative for prompt in prompts] if subjects else []
    if prior_row:
        payload = [{**row, PAIR: torch.tensor([[PAIRS[prompt]]])} for row, prompt in zip(payload, prompts, strict=True)]
    return StepInputs(
        x=noise(rows, 4, side // 8, side // 8),
        sigma=torch.ones(rows, device=pair.device),
        contexts=[noise(1, TOKENS, WIDTHS[pair.base], dtype=pair.dtype) for _ in prompts],
        size=noise(rows, SIZE_CONDITION, dtype=pair.dtype) if pair.base == "sdxl" else None,
        payload={name: [row[name] for row in payload] for name in payload[0]} if payload else {},
        prompts=prompts,
        uuids=[uuid4() for _ in prompts],
    )


def row_payload(
    present: int, padded: int, number: int, generator: torch.Generator, width: int = FEATURE
) -> dict[str, Tensor]:
    """MoA's inputs of one row: `present` subjects on tokens of their own, padded to the number of the other rows.

    Args: number: of its prompt, see `PayloadNames.prompt`; width: of a feature.
    """
    slots, features = torch.zeros(1, TOKENS, 1), torch.zeros(1, padded, width)
    slots[0, 2 : 2 + present, 0] = torch.arange(1, present + 1)
    features[:, :present] = torch.randn(1, present, width, generator=generator)
    return {
        FIRST.slots: slots,
        FIRST.features: features,
        FIRST.terms: torch.zeros(1, padded, 4),
        FIRST.barred: torch.zeros(1, padded, REGION**2),
        FIRST.prompt: torch.tensor([[float(number)]]),
    }


def load_patched(patched: Any) -> None:
    """Load a model and its adapter onto the device."""
    comfy.model_management.load_models_gpu([patched, *patched.get_nested_additional_models()])


def call(patched: Any, step: StepInputs, attention: Callable[..., Tensor] | None = None) -> Tensor:
    """Denoise once: -> (B,4,h,w). Rows are concatenated in the call, as the host does at every step.

    Args: attention: replaces the host's kernel.
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
    rows = {name: torch.cat(parts) for name, parts in step.payload.items()}
    if step.size is not None:
        rows["y"] = step.size
    return base.apply_model(
        step.x, step.sigma, c_crossattn=torch.cat(step.contexts), transformer_options=options, **rows
    )


def denoise(patched: Any, step: StepInputs, attention: Callable[..., Tensor] | None = None) -> None:
    """Call in inference mode, as samplers do; the result is dropped."""
    with torch.inference_mode():
        call(patched, step, attention)
