"""References as they are seen in training: never twice the same, so that the person is learned and not the picture.

FastComposer's list (outside the subject noise, crop, zoom, rotate, jitter, blur, grey, mirror, bend), with torchvision.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision.transforms.v2.functional as TF
from torch import Generator, Tensor

from ...reference import GREY
from .pictures import BadPicture

Strength = Literal["fastcomposer", "gentle"]
MARGIN = 1.1
"""A cut-out is this much larger than the subject's bounding box."""


def cut_out(image: Tensor, mask: Tensor, side: int) -> Tensor:
    """The subject with its transparency, centred in a square: (3,H,W) (H,W) in [0,1] -> (4,side,side) in [0,1].

    Raises: BadPicture when the mask is empty.
    """
    rows, columns = ((mask > 0.5).any(dim=d).nonzero() for d in (1, 0))
    if not len(rows):
        raise BadPicture("empty mask: nothing of a subject to cut out")
    height, width = (int(x[-1]) - int(x[0]) + 1 for x in (rows, columns))
    size = round(max(height, width) * MARGIN)
    top, left = int(rows[0]) - (size - height) // 2, int(columns[0]) - (size - width) // 2
    rgba = torch.cat([image * mask, mask[None]])  # colours are premultiplied, or edges get dark
    square = TF.crop(rgba, top, left, size, size)
    return TF.resize(square, [side, side], antialias=True).clamp(0, 1)


def augment(cutout: Tensor, side: int, strength: Strength, generator: Generator) -> Tensor:
    """(4,k,k) premultiplied cut-out -> (3,side,side) in [0,1]."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def chance(share: float) -> bool:
        return uniform(0, 1) < share

    gentle = strength == "gentle"
    turn = uniform(-12, 12) if gentle else uniform(-30, 30) * chance(0.75)
    zoom = uniform(0.9, 1.6) if gentle else (uniform(1, 2) if chance(0.5) else 1.0)
    room = max(0.0, 1 - 1 / zoom) * len(cutout[0]) / 2
    shift = [uniform(-room, room) * zoom for _ in range(2)]
    x = TF.affine(cutout, turn, shift, zoom, [0.0, 0.0], interpolation=TF.InterpolationMode.BILINEAR)
    x = TF.horizontal_flip(x) if chance(0.5) else x
    x = TF.resize(x, [side, side], antialias=True)
    if not gentle and chance(0.5):
        x = bend(x, generator)
    noise = torch.rand(3, side, side, generator=generator) if chance(0.5) else torch.full((3, side, side), GREY)
    picture = x[:3] + noise * (1 - x[3:])
    if gentle:
        return (picture * uniform(0.85, 1.15)).clamp(0, 1)
    if chance(0.5):
        for adjust in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
            picture = adjust(picture, uniform(0.5, 1.5))
    if chance(0.5):
        picture = TF.gaussian_blur(picture, [5, 5], [uniform(0.1, 2.0)])
    if chance(0.1):
        picture = TF.rgb_to_grayscale(picture, 3)
    return picture.clamp(0, 1)


def bend(x: Tensor, generator: Generator, amount: float = 0.03) -> Tensor:
    """A smooth random displacement of up to a few hundredths of the side: (C,k,k) -> (C,k,k)."""
    coarse = amount * torch.randn(1, 2, 5, 5, generator=generator)
    field = torch.nn.functional.interpolate(coarse, size=x.shape[-2:], mode="bicubic", align_corners=True)
    return TF.elastic(x, field.movedim(1, -1))
