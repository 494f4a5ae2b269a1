"""What the rows of a call show: numbers of the latent pixels travel through the sampler, cut as the latents are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.conds
import torch
from torch import Tensor

from ....moa_attention.run.view import View, pixel_numbers, read_views

PIXELS, RUN = "moa_pixels", "moa_run"
"""Names in `model_conds`, added when a run begins: (B,1,h,w) int64, the number of every latent pixel of the run; and (1,3), the number
of the prompt and the height and width of the latents. The host, tiled samplers and context windows cut whatever has the latents'
size as they cut the latents."""


def payload_of_run(shape: Sequence[int], prompt: int = 0) -> dict[str, Tensor]:
    """Both entries for latents of a shape (B,C,h,w)."""
    pictures, _, height, width = shape
    return {PIXELS: pixel_numbers(pictures, height, width), RUN: torch.tensor([[prompt, height, width]])}


def number_pixels(conds: Mapping[str, list[dict]], shape: Sequence[int]) -> dict[str, list[dict]]:
    """Copies of a run's conds that carry the numbers of its pixels.

    Args: shape: of the run's latents. Those of other architectures are not (B,C,h,w) and remain without numbers.
    """
    if len(shape) != 4:
        return dict(conds)
    numbers = iter(range(sum(map(len, conds.values()))))
    return {name: [with_numbers(cond, shape, next(numbers)) for cond in of_name] for name, of_name in conds.items()}


def with_numbers(cond: dict, shape: Sequence[int], prompt: int) -> dict:
    """A copy of a cond that carries the numbers of a run's pixels."""
    payload = payload_of_run(shape, prompt)
    conds = {PIXELS: comfy.conds.CONDNoiseShape(payload[PIXELS]), RUN: comfy.conds.CONDRegular(payload[RUN])}
    return {**cond, "model_conds": {**cond.get("model_conds", {}), **conds}}


def views_of_call(
    numbers: Tensor | None, run: Tensor | None, rows: Tensor, size: tuple[int, int], options: Mapping[str, Any]
) -> tuple[list[View | None], list[int]]:
    """What the rows of a call show, where it is known, and their prompts.

    Args: numbers (R,1,h,w) and run (R,3) of the rows, as in `PIXELS` and `RUN`; rows (R,) their indices in the call; size: (h, w) of
        the call's latents; options: the host's transformer_options.
    """
    if numbers is None or run is None or tuple(numbers.shape[-2:]) != size:
        return [None] * len(rows), [0] * len(rows)
    prompts, full = run[:, 0].tolist(), (int(run[0, 1]), int(run[0, 2]))
    frames = frames_of(options)
    views = [
        view if view is None or not frames or view.picture == frames[row % len(frames)] else None
        for row, view in zip(rows.tolist(), read_views(numbers, full), strict=True)
    ]
    times = Counter(zip(prompts, views, strict=True))
    return [view if times[prompt, view] == 1 else None for prompt, view in zip(prompts, views, strict=True)], prompts


def frames_of(options: Mapping[str, Any]) -> list[int] | None:
    """The frames that a context window names; it may be set to keep the conds of others, and their numbers with them."""
    window = options.get("context_window")
    if getattr(window, "dim", 0) != 0:
        return None  # it cuts the pictures, and their numbers with them
    frames = (options.get("ad_params") or {}).get("sub_idxs") or getattr(window, "index_list", None)
    before = getattr(window, "causal_anchor_index", None)
    return frames if not frames or before is None or before < 0 else [before, *frames]
