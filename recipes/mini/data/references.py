"""Reference pictures for training: random framings and backgrounds of a person's cut-out."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

GREY = 0.5
TILT = math.radians(12)


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """(count,) numbers between low and high."""
    return low + (high - low) * torch.rand(count, generator=generator)


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


def random_backgrounds(count: int, side: int, generator: Generator) -> Tensor:
    """Grey, a plain colour, a gradient or noise, in equal parts: -> (count,3,side,side)."""
    first, second = torch.rand(2, count, 3, 1, 1, generator=generator)
    ramp = torch.linspace(0, 1, side)[:, None]
    noise = torch.rand(count, 3, side, side, generator=generator)
    grey = torch.full_like(noise, GREY)
    plain, gradient = first.expand_as(noise), first + (second - first) * ramp
    kind = torch.randint(0, 4, (count, 1, 1, 1), generator=generator)
    return torch.where(kind == 0, grey, torch.where(kind == 1, plain, torch.where(kind == 2, gradient, noise)))


def draw_references(cutouts: np.ndarray, side: int, generator: Generator) -> Tensor:
    """(K,h,w,4) uint8 cut-outs -> (K,3,side,side) in [0,1], each in a random framing before a random background."""
    rgba = torch.from_numpy(cutouts).movedim(-1, 1).float() / 255
    colour, alpha = rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]
    grid = F.affine_grid(random_framings(len(rgba), generator), [len(rgba), 4, side, side], align_corners=False)
    # The cut-out is about twice as large as the picture: sampling once without a filter would alias.
    framed = F.grid_sample(F.avg_pool2d(torch.cat([colour, alpha], 1), 2), grid, align_corners=False)
    light = uniform(len(rgba), 0.85, 1.15, generator)[:, None, None, None]
    background = random_backgrounds(len(rgba), side, generator)
    return (framed[:, :3] * light + background * (1 - framed[:, 3:])).clamp(0, 1)
