"""From a photo of any shape to one of a few shapes of equal area, so that pictures can share a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, int]
"""(height, width) in pixels."""
WIDEST = 2.0


def buckets(side: int, multiple: int = 64) -> list[Shape]:
    """Shapes from 1:2 to 2:1 with about side² pixels and sides divisible by `multiple`; a small side allows only the square."""
    shapes = {(side, side)}
    for width in range(multiple, 2 * side + 1, multiple):
        height = multiple * round(side * side / width / multiple)
        if height and max(width / height, height / width) <= WIDEST and abs(height * width / side**2 - 1) < 0.1:
            shapes.add((height, width))
    return sorted(shapes)


def nearest(size: Shape, shapes: Sequence[Shape]) -> Shape:
    """The shape whose proportions are nearest to a picture's."""
    return min(shapes, key=lambda s: abs(math.log(s[1] / s[0]) - math.log(size[1] / size[0])))


def frame(image: Tensor, masks: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Resize to cover `shape` and crop the rest away, keeping the subjects as central as that allows.

    Args: image (3,H,W), masks (S,H,W), both in [0,1]. Returns: (3,h,w) and (S,h,w).
    """
    height, width = image.shape[-2:]
    scale = max(shape[0] / height, shape[1] / width)
    size = (max(shape[0], round(height * scale)), max(shape[1], round(width * scale)))
    image, masks = (
        F.interpolate(x[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
        for x in (image, masks)
    )
    union = masks.amax(dim=0) > 0.5
    top, left = (start(union.any(dim=1 - axis), size[axis] - shape[axis], shape[axis]) for axis in (0, 1))
    window = (..., slice(top, top + shape[0]), slice(left, left + shape[1]))
    return image[window].clamp(0, 1), masks[window].clamp(0, 1)


def start(occupied: Tensor, spare: int, length: int) -> int:
    """Where a window of `length` begins, in 0..spare, so that what is occupied lies in its middle: (n,) bool."""
    places = occupied.nonzero()
    middle = float(places.float().mean()) if len(places) else (spare + length) / 2
    return min(spare, max(0, round(middle - length / 2)))
