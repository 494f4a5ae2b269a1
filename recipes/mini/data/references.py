"""Reference pictures for training: a person's cut-out before random backgrounds, whole as users give it, or framed at random."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Generator, Tensor

from ....moa_attention.subjects.reference import GREY, prepare_reference
from .faces import VARIANTS

WHOLE_RATE = 0.5
"""Of references that show the whole cut-out, prepared as in use."""
TILT = math.radians(12)


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """(count,) numbers between low and high."""
    return low + (high - low) * torch.rand(count, generator=generator)


def other_drawings(drawings: Tensor, generator: Generator) -> Tensor:
    """Of each person another drawing, as numbers of drawings (...); -1, no drawing, gives one of the first person."""
    other = (drawings % VARIANTS + torch.randint(1, VARIANTS, drawings.shape, generator=generator)) % VARIANTS
    return drawings.clamp(min=0) // VARIANTS * VARIANTS + other


def random_framings(count: int, generator: Generator) -> Tensor:
    """Of a 2:3 cut-out in a square, from the whole bust to the face alone: -> (count,2,3) affine maps."""
    angle = uniform(count, -TILT, TILT, generator)
    zoom = uniform(count, 0.55, 1.1, generator)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    # Output square -> cut-out coordinates: the cut-out is 1.5 times as high as wide.
    rows = [
        torch.stack(
            [1.5 * zoom * mirror * angle.cos(), -1.5 * zoom * angle.sin(), uniform(count, -0.2, 0.2, generator)], 1
        ),
        torch.stack([zoom * mirror * angle.sin(), zoom * angle.cos(), uniform(count, -0.25, 0.05, generator)], 1),
    ]
    return torch.stack(rows, dim=1)


def random_backgrounds(count: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """Grey, a plain colour, a gradient or noise, in equal parts: -> (count,3,*size)."""
    first, second = torch.rand(2, count, 3, 1, 1, generator=generator)
    ramp = torch.linspace(0, 1, size[0])[:, None]
    noise = torch.rand(count, 3, *size, generator=generator)
    grey = torch.full_like(noise, GREY)
    plain, gradient = first.expand_as(noise), first + (second - first) * ramp
    kind = torch.randint(0, 4, (count, 1, 1, 1), generator=generator)
    return torch.where(kind == 0, grey, torch.where(kind == 1, plain, torch.where(kind == 2, gradient, noise)))


def over_backgrounds(rgba: Tensor, generator: Generator) -> Tensor:
    """Premultiplied people (K,4,h,w) under a random light before random backgrounds: -> (K,3,h,w) in [0,1]."""
    light = uniform(len(rgba), 0.85, 1.15, generator)[:, None, None, None]
    background = random_backgrounds(len(rgba), (rgba.shape[-2], rgba.shape[-1]), generator)
    return (rgba[:, :3] * light + background * (1 - rgba[:, 3:])).clamp(0, 1)


def draw_references(cutouts: np.ndarray, side: int, generator: Generator) -> Tensor:
    """(K,h,w,4) uint8 cut-outs -> (K,3,side,side) in [0,1], each before a random background."""
    rgba = torch.from_numpy(cutouts).movedim(-1, 1).float() / 255
    rgba[:, :3] *= rgba[:, 3:]
    whole = torch.rand(len(rgba), generator=generator) < WHOLE_RATE
    pictures = torch.empty(len(rgba), 3, side, side)
    for chosen, show in ((whole, show_whole), (~whole, show_framed)):
        if chosen.any():
            pictures[chosen] = show(rgba[chosen], side, generator)
    return pictures


def show_whole(rgba: Tensor, side: int, generator: Generator) -> Tensor:
    """The whole of premultiplied cut-outs (K,4,h,w), prepared as in use."""
    pictures = over_backgrounds(rgba, generator)
    return prepare_reference(rearrange(pictures, "k c h w -> k h w c"), None, side)


def show_framed(rgba: Tensor, side: int, generator: Generator) -> Tensor:
    """Random framings of premultiplied cut-outs (K,4,h,w)."""
    # Where a cut-out is twice as large as the picture, sampling once without a filter would alias.
    shrunk = F.avg_pool2d(rgba, max(1, rgba.shape[-2] // side))
    grid = F.affine_grid(random_framings(len(rgba), generator), [len(rgba), 4, side, side], align_corners=False)
    return over_backgrounds(F.grid_sample(shrunk, grid, align_corners=False), generator)
