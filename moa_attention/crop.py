"""Which of the boxes in a picture, and the square around it that is cut out (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .reference import square

Order = Literal["largest first", "left to right"]
SIDE = 512
"""Pixels of a crop's side at most: more than any image encoder looks at."""


class Box(NamedTuple):
    """A rectangle in pixels of its picture; it may reach beyond it."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        return self.width * self.height

    def within(self, height: int, width: int) -> bool:
        """Whether any of it lies in a picture of that size."""
        across = min(self.x + self.width, width) > max(self.x, 0)
        return across and min(self.y + self.height, height) > max(self.y, 0)


def choose(boxes: Sequence[Box], order: Order, index: int) -> Box | None:
    """The box with that number, counted from 1; None where there are fewer."""
    if order == "largest first":
        ordered = sorted(boxes, key=lambda box: (-box.area, box.x, box.y))
    else:
        ordered = sorted(boxes, key=lambda box: (box.x + box.width / 2, box.y))
    return ordered[index - 1] if index <= len(ordered) else None


def window(box: Box, margin: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the square around a box, inside a picture of (height, width).

    At a border it is shifted rather than cut. In a picture too small for the margin, the margin gives way; what is still not
    square is a box longer than the picture's short side.

    Args: margin: on each side of the box, as a share of its longer side.
    """
    longer = max(box.width, box.height)
    side = min(longer * (1 + 2 * margin), max(longer, min(height, width)))
    return span(box.y + box.height / 2, side, height), span(box.x + box.width / 2, side, width)


def span(centre: float, length: float, extent: int) -> slice:
    """As many whole pixels around `centre`, of 0..extent."""
    pixels = min(max(round(length), 1), extent)
    start = min(max(round(centre - pixels / 2), 0), extent - pixels)
    return slice(start, start + pixels)


def one_size(crops: Sequence[Tensor]) -> Tensor:
    """Make a batch of crops: K × (h,w,3) -> (K,side,side,3), the side of the largest but at most `SIDE`.

    What is not square is padded with grey, as `prepare_reference` would. No crops: (0,SIDE,SIDE,3).
    """
    if not crops:
        return torch.zeros(0, SIDE, SIDE, 3)
    side = min(SIDE, max(max(crop.shape[:2]) for crop in crops))
    return torch.stack([square(crop.movedim(-1, 0), side).movedim(0, -1) for crop in crops])
