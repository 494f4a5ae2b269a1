"""The selected box of a picture, and the square around it that is cut out (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from einops import rearrange
from torch import Tensor

from .reference import fit_to_square

BoxOrder = Literal["largest first", "left to right"]
BOX_ORDERS: tuple[BoxOrder, ...] = get_args(BoxOrder)
MAX_SIDE = 512
"""Largest side of a crop in pixels: more than any image encoder takes as input."""


class PixelBox(NamedTuple):
    """A rectangle in pixels of a picture; it may reach beyond the picture."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    def overlaps(self, height: int, width: int) -> bool:
        """Whether any of it lies in a picture of that size."""
        columns = min(self.x + self.width, width) > max(self.x, 0)
        return columns and min(self.y + self.height, height) > max(self.y, 0)


def select_box(boxes: Sequence[PixelBox], order: BoxOrder, index: int) -> PixelBox | None:
    """The box with that number, counted from 1; None where there are fewer."""
    if order == "largest first":
        ordered = sorted(boxes, key=lambda box: (-box.area, box.x, box.y))
    else:
        ordered = sorted(boxes, key=lambda box: (box.x + box.width / 2, box.y))
    return ordered[index - 1] if index <= len(ordered) else None


def square_around(box: PixelBox, margin: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the square around a box, inside a picture of (height, width).

    At the picture's border the square is shifted, not cut. In a picture too small for the margin, the margin shrinks. The
    result is not square only where the box is longer than the picture's shorter side.

    Args: margin: on each side of the box, as a share of its longer side.
    """
    longer = max(box.width, box.height)
    side = min(longer * (1 + 2 * margin), max(longer, min(height, width)))
    return span(box.y + box.height / 2, side, height), span(box.x + box.width / 2, side, width)


def span(centre: float, length: float, extent: int) -> slice:
    """`length` rounded to at least one whole pixel, around `centre` and inside 0..extent."""
    pixels = min(max(round(length), 1), extent)
    start = min(max(round(centre - pixels / 2), 0), extent - pixels)
    return slice(start, start + pixels)


def stack_crops(crops: Sequence[Tensor]) -> Tensor:
    """One batch of crops of several sizes: K × (h,w,3) -> (K,side,side,3), the side of the largest but at most `MAX_SIDE`.

    A crop that is not square is padded with grey, as in `prepare_reference`. Without crops: (0,MAX_SIDE,MAX_SIDE,3).
    """
    if not crops:
        return torch.zeros(0, MAX_SIDE, MAX_SIDE, 3)
    side = min(MAX_SIDE, max(max(crop.shape[:2]) for crop in crops))
    squares = [fit_to_square(rearrange(crop, "h w c -> c h w"), side) for crop in crops]
    return torch.stack([rearrange(crop, "c h w -> h w c") for crop in squares])
