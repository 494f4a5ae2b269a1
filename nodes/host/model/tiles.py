"""The tiles of shiimizu/ComfyUI-TiledDiffusion, which cuts latents but fails on other inputs of their size.

Its function around the model is therefore given no numbers of pixels. It is called once more with the numbers in place of the latents:
what it passes on then is what the tiles show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ....moa_attention.run.listener import RunListener
from ....moa_attention.run.view import pixel_numbers
from .views import PIXELS

OPTION, WRAPPER = "tiled_diffusion", "model_function_wrapper"
"""Of a model: what the extension sets, and its function."""
MOVING = "SpotDiffusion"
"""Its method whose tiles move from step to step."""

Function = Callable[[Callable[..., Tensor], Mapping[str, Any]], Tensor]


class TiledCalls(RunListener):
    """Of one run."""

    def __init__(self) -> None:
        self.known: dict[tuple[Function, torch.Size], list[Tensor]] = {}

    def end_run(self) -> None:
        self.known = {}

    def follow(self, options: dict[str, Any]) -> dict[str, Any]:
        """A model's options, with the extension's function replaced by one that follows its tiles."""
        if OPTION not in options or WRAPPER not in options:
            return options
        return {**options, WRAPPER: partial(self.call, options[WRAPPER])}

    def call(self, function: Function, apply: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        """Call the extension's function; each of its calls of the model gets the numbers of its pixels."""
        conds = dict(given["c"])
        numbers = conds.pop(PIXELS, None)
        if numbers is None:
            return function(apply, given)
        parts = iter(self.parts(function, given))

        def apply_tiles(*args: Any, **kwargs: Any) -> Tensor:
            return apply(*args, **kwargs, **{PIXELS: numbers.flatten()[next(parts)]})

        return function(apply_tiles, {**given, "c": conds})

    def parts(self, function: Function, given: dict[str, Any]) -> list[Tensor]:
        """For each call of the model, the places of its pixels among those of the function's latents: (rows,1,h,w) int64.

        They are found once a run, but for tiles that move: those are read in every step, as the extension itself reads their shift.
        """
        key = (function, given["input"].shape)
        if type(function).__name__ == MOVING or key not in self.known:
            self.known[key] = trace_parts(function, given)
        return self.known[key]


def trace_parts(function: Function, given: dict[str, Any]) -> list[Tensor]:
    """As `TiledCalls.parts`, by a call with the numbers of rows and of pixels as two channels: float32 holds each exactly."""
    rows, _, height, width = given["input"].shape
    numbers, pixels = pixel_numbers(rows, height, width), height * width
    latents = torch.cat((numbers // pixels, numbers % pixels), dim=1).to(given["input"].device, torch.float32)
    seen: list[Tensor] = []

    def record(x: Tensor, *_args: Any, **_conds: Any) -> Tensor:
        seen.append(x)
        return x

    function(record, {**given, "input": latents, "c": {}})
    found = [x.cpu().long() for x in seen]
    return [row * pixels + pixel for row, pixel in (x.split(1, dim=1) for x in found)]
