"""Augmented references: each view of a subject differs, so that training learns the subject and not the picture."""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as TF
from torch import Generator, Tensor

from ...subjects.reference import GREY
from ..config import Augmentation
from .pictures import BadPicture

MARGIN = 1.1
"""Side of a cut-out, relative to the longer side of the subject's bounding box."""


class Draws:
    """Random numbers of one view."""

    def __init__(self, generator: Generator):
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability


def cut_out(image: Tensor, mask: Tensor, side: int) -> Tensor:
    """The subject with its transparency, centred in a square: (3,H,W) uint8, (H,W) in [0,1] -> (4,side,side) in [0,1].

    Raises: BadPicture when the mask is empty.
    """
    inside = mask > 0.5
    rows, columns = (inside.any(dim=d).nonzero() for d in (1, 0))
    if not len(rows):
        raise BadPicture("empty mask: it shows nothing of the subject")
    height, width = (int(x[-1]) - int(x[0]) + 1 for x in (rows, columns))
    size = round(max(height, width) * MARGIN)
    top, left = int(rows[0]) - (size - height) // 2, int(columns[0]) - (size - width) // 2
    colours, alpha = (TF.crop(x, top, left, size, size) for x in (image, mask[None]))
    # Colours are premultiplied, otherwise edges get dark; one after the other, they need less memory at a time.
    square = [TF.resize(colour[None] / 255 * alpha, [side, side], antialias=True) for colour in colours]
    return torch.cat([*square, TF.resize(alpha, [side, side], antialias=True)]).clamp(0, 1)


def augment(cutout: Tensor, side: int, augmentation: Augmentation, generator: Generator) -> Tensor:
    """(4,k,k) premultiplied cut-out -> (3,side,side) in [0,1]."""
    view = gentle if augmentation == "gentle" else fastcomposer
    return view(cutout, side, Draws(generator)).clamp(0, 1)


def gentle(cutout: Tensor, side: int, draws: Draws) -> Tensor:
    """Framing, tilt and brightness only (ours)."""
    turn, zoom = draws.uniform(-12, 12), draws.uniform(0.9, 1.6)
    picture = over_background(reframe(cutout, side, turn, zoom, draws), draws)
    return picture * draws.uniform(0.85, 1.15)


def fastcomposer(cutout: Tensor, side: int, draws: Draws) -> Tensor:
    """FastComposer's list: background noise, crop, zoom, rotation, jitter, blur, grey, mirror, elastic deformation."""
    turn = draws.uniform(-30, 30)
    turn = turn if draws.chance(0.75) else 0.0
    zoom = draws.uniform(1, 2) if draws.chance(0.5) else 1.0
    view = reframe(cutout, side, turn, zoom, draws)
    if draws.chance(0.5):
        view = deform(view, draws.generator)
    picture = over_background(view, draws)
    if draws.chance(0.5):
        for adjust in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
            picture = adjust(picture, draws.uniform(0.5, 1.5))
    if draws.chance(0.5):
        picture = TF.gaussian_blur(picture, [5, 5], [draws.uniform(0.1, 2.0)])
    return TF.rgb_to_grayscale(picture, 3) if draws.chance(0.1) else picture


def reframe(cutout: Tensor, side: int, turn: float, zoom: float, draws: Draws) -> Tensor:
    """Rotate by `turn` degrees, enlarge, shift within what the enlargement cuts off, mirror half of all: -> (4,side,side)."""
    spare = max(0.0, 1 - 1 / zoom) * len(cutout[0]) / 2
    shift = [draws.uniform(-spare, spare) * zoom for _ in range(2)]
    view = TF.affine(cutout, turn, shift, zoom, [0.0, 0.0], interpolation=TF.InterpolationMode.BILINEAR)
    view = TF.horizontal_flip(view) if draws.chance(0.5) else view
    return TF.resize(view, [side, side], antialias=True)


def over_background(view: Tensor, draws: Draws) -> Tensor:
    """Compose over noise, or over grey: (4,k,k) -> (3,k,k)."""
    if draws.chance(0.5):
        background = torch.rand(3, *view.shape[1:], generator=draws.generator)
    else:
        background = torch.full((3, *view.shape[1:]), GREY)
    return view[:3] + background * (1 - view[3:])


def deform(x: Tensor, generator: Generator, amount: float = 0.03) -> Tensor:
    """A smooth random displacement of up to a few hundredths of the side: (C,k,k) -> (C,k,k)."""
    coarse = amount * torch.randn(1, 2, 5, 5, generator=generator)
    field = torch.nn.functional.interpolate(coarse, size=x.shape[-2:], mode="bicubic", align_corners=True)
    return TF.elastic(x, field.movedim(1, -1))
