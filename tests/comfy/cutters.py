"""How others cut what is sampled, written anew from their behaviour: tiled samplers at the model function, windows of frames."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import subjects
import torch
from torch import Tensor

Box = tuple[int, int, int, int]
"""Top, left, height and width in latent pixels."""


def boxes(size: tuple[int, int], tile: int, stride: int | None = None) -> list[Box]:
    """Squares of `tile` latent pixels in reading order."""
    steps = [range(0, side - tile + 1, stride or tile) for side in size]
    return [(top, left, tile, tile) for top in steps[0] for left in steps[1]]


def cut(x: Tensor, box: Box) -> Tensor:
    top, left, height, width = box
    return x[..., top : top + height, left : left + width]


@dataclass(eq=False)
class Tiles:
    """Computes a model in tiles, `batch` of them in a call, and averages where they overlap.

    The wrapper of the model function cuts the latents and every input with four dimensions, and repeats the other inputs to the
    tiles' rows; `cond_or_uncond` and `uuids` keep their length. With `shift` the latents are rolled before they are cut.
    """

    tiles: Sequence[Box]
    batch: int
    shift: int = 0

    def __call__(self, apply: Callable[..., Tensor], given: dict) -> Tensor:
        x, t = given["input"].roll((self.shift, self.shift), (-2, -1)), given["timestep"]
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for first in range(0, len(self.tiles), self.batch):
            some = self.tiles[first : first + self.batch]
            conds = {name: self.rows(value, x, some) for name, value in given["c"].items()}
            made = apply(torch.cat([cut(x, box) for box in some]), t.repeat(len(some)), **conds)
            for box, part in zip(some, made.chunk(len(some)), strict=True):
                cut(total, box).add_(part)
                cut(count, box).add_(1)
        return (total / count).roll((-self.shift, -self.shift), (-2, -1))

    def rows(self, value: Any, x: Tensor, some: Sequence[Box]) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.ndim == 4:
            return self.cut_input(value.roll((self.shift, self.shift), (-2, -1)), x, some)
        return value.repeat(len(some), *[1] * (value.ndim - 1))

    def cut_input(self, value: Tensor, x: Tensor, some: Sequence[Box]) -> Tensor:
        return torch.cat([cut(value, box) for box in some])


class SpotDiffusion(Tiles):
    """As shiimizu/ComfyUI-TiledDiffusion does it (this method, and the others without a shift): a four-dimensional input of the latents'
    size ends in an error."""

    def cut_input(self, value: Tensor, x: Tensor, some: Sequence[Box]) -> Tensor:
        assert value.shape[-2:] == x.shape[-2:]
        raise AttributeError("'int' object has no attribute 'slicer'")


def tiled(model: Any, tiles: Sequence[Box], batch: int, shift: int = 0, kind: type[Tiles] = Tiles) -> Any:
    """A model that is computed in tiles."""
    model = model.clone()
    model.set_model_unet_function_wrapper(kind(tiles, batch, shift))
    if kind is not Tiles:
        model.model_options["tiled_diffusion"] = True
    return model


def windows(model: Any, length: int, overlap: int = 0, **options: Any) -> Any:
    """The host's own context windows over the frames of a batch."""
    node = importlib.import_module("comfy_extras.nodes_context_windows").ContextWindowsManualNode
    settings = {"dim": 0, "causal_window_fix": False, **options}
    settings |= {
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "flat",
    }
    return subjects.first(
        node.execute(model, context_length=length, context_overlap=overlap, freenoise=False, **settings)
    )


KINDS = (Tiles, SpotDiffusion)


def noise(*shape: int) -> Tensor:
    """(B,4,h,w)"""
    return torch.randn(shape[2] if len(shape) > 2 else 1, 4, *shape[:2], generator=torch.Generator().manual_seed(3))


def sample(model: Any, positive: Any, negative: Any, start: Tensor, steps: int = 3, cfg: float = 5.0) -> Tensor:
    """Latents from given noise (B,4,h,w)."""
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            start,
            steps,
            cfg,
            "euler",
            "normal",
            positive,
            negative,
            torch.zeros_like(start),
            disable_pbar=True,
            seed=0,
        )
