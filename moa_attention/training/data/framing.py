"""Scaling and cropping photos to a few shapes of equal area, so that pictures can share a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .images import mask_warnings, read_image, read_masks, read_reference
from .pictures import BadPicture, TrainingPicture

Shape = tuple[int, int]
"""(height, width) in pixels."""
WIDEST, NARROWEST = 2.0, 8.0
"""Longer side by shorter side, of a shape and of a picture."""
ENLARGED = 2.0
"""Factor above which the enlargement of a small picture is reported."""


class Framed(NamedTuple):
    """What is trained of a picture."""

    image: Tensor
    """(3,h,w) in [0,1]"""
    masks: Tensor
    """(S,h,w) in [0,1]"""
    crop: tuple[float, float, float, float]
    """Its left, top, right and lower edge in the whole picture, as parts of width and height."""


class LoadedPicture(NamedTuple):
    """A picture that can be trained on."""

    image: Tensor
    """(3,H,W) uint8: as floats it takes four times the memory, of which the system clears every page."""
    masks: Tensor
    """(S,H,W) in [0,1]"""
    framed: Framed
    references: list[list[tuple[Tensor, Tensor]]]
    """Of each subject, (3,H,W) uint8 and its mask (H,W) in [0,1]: other pictures of it, or this one."""
    warnings: list[str]
    """What looks wrong in it."""


def load_picture(picture: TrainingPicture, side: int) -> LoadedPicture:
    """The pixels and masks of a picture, and what is trained of them at about side² pixels.

    Raises: BadPicture when a file cannot be read or does not fit, or a subject is outside the crop.
    """
    image = read_image(picture.path)[:3]
    size = (image.shape[-2], image.shape[-1])
    if max(size) > NARROWEST * min(size):
        raise BadPicture(f"too narrow: {size[1]} × {size[0]} pixels; crop it to {NARROWEST:g}:1 or less")
    masks = read_masks(picture, size)
    shape = nearest_shape(size, buckets(side))
    framed = frame(image, masks, shape)
    for number, mask in enumerate(framed.masks, start=1):
        if not (mask > 0.5).any():
            raise BadPicture(f"subject outside the crop: subject {number} is not in the {shape[1]} × {shape[0]} pixels")
    references = [
        [read_reference(path) for path in subject.references] or [(image, mask)]
        for subject, mask in zip(picture.subjects, masks, strict=True)
    ]
    warnings = mask_warnings(picture, masks)
    enlarged = max(shape[0] / size[0], shape[1] / size[1])
    if enlarged > ENLARGED:
        warnings.append(f"small picture: {size[1]} × {size[0]} pixels are enlarged {enlarged:.1f} times")
    return LoadedPicture(image, masks, framed, references, warnings)


def buckets(side: int, multiple: int = 64) -> list[Shape]:
    """Shapes from 1:2 to 2:1 with about side² pixels and sides divisible by `multiple`; a small side allows only the square."""
    shapes = {(side, side)}
    for width in range(multiple, 2 * side + 1, multiple):
        height = multiple * round(side * side / width / multiple)
        if height and max(width / height, height / width) <= WIDEST and abs(height * width / side**2 - 1) < 0.1:
            shapes.add((height, width))
    return sorted(shapes)


def nearest_shape(size: Shape, shapes: Sequence[Shape]) -> Shape:
    """The shape whose proportions are nearest to a picture's."""
    return min(shapes, key=lambda s: abs(math.log(s[1] / s[0]) - math.log(size[1] / size[0])))


def frame(image: Tensor, masks: Tensor, shape: Shape) -> Framed:
    """Resize to cover `shape` and crop the rest away, with the subjects as central as that allows.

    Args: image (3,H,W) uint8, masks (S,H,W) in [0,1].
    """
    height, width = image.shape[-2:]
    scale = max(shape[0] / height, shape[1] / width)
    size = (max(shape[0], round(height * scale)), max(shape[1], round(width * scale)))
    image, masks = resized_channels(image, size, 255), resized_channels(masks, size, 1)
    union = masks.amax(dim=0) > 0.5
    top, left = (start(union.any(dim=1 - axis), size[axis] - shape[axis], shape[axis]) for axis in (0, 1))
    window = (..., slice(top, top + shape[0]), slice(left, left + shape[1]))
    edges = (left / size[1], top / size[0], (left + shape[1]) / size[1], (top + shape[0]) / size[0])
    return Framed(image[window].clamp(0, 1), masks[window].clamp(0, 1), edges)


def resized_channels(x: Tensor, size: Shape, white: int) -> Tensor:
    """Divided by `white` and resized, one channel after the other, which needs less memory at a time: (C,H,W) -> (C,h,w)."""
    channels = (channel[None, None] / white for channel in x)
    return torch.cat([F.interpolate(c, size=size, mode="bilinear", antialias=True)[0] for c in channels])


def start(occupied: Tensor, spare: int, length: int) -> int:
    """Where a window of `length` begins, in 0..spare, so that its middle is the mean of the occupied indices: (n,) bool."""
    places = occupied.nonzero()
    middle = float(places.float().mean()) if len(places) else (spare + length) / 2
    return min(spare, max(0, round(middle - length / 2)))
