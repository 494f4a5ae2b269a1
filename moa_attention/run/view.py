"""The part of a picture that a row of a call shows (ours): hosts cut batches into windows of frames and pictures into tiles.

Every latent pixel of a run has a number. The numbers travel beside the latents in a tensor of the same size, so that whoever cuts
the latents cuts the numbers alike. A call reads from them what it shows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """A rectangle of one picture of the run, in latent pixels."""

    picture: int
    """Its number in the run's batch, from 0."""
    top: int
    left: int
    height: int
    width: int
    full: tuple[int, int]
    """(H, W) of the picture."""

    @property
    def whole(self) -> bool:
        """Whether it is all of the picture."""
        return (self.height, self.width) == self.full

    def grid(self, own: tuple[int, int]) -> tuple[int, int]:
        """The grid of the picture on which this part has the grid `own`."""
        return round(own[0] * self.full[0] / self.height), round(own[1] * self.full[1] / self.width)

    def part(self, grid: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of this part on a grid of the picture, one of each at least."""
        return (
            cells_of(self.top, self.height, self.full[0], grid[0]),
            cells_of(self.left, self.width, self.full[1], grid[1]),
        )


def cells_of(start: int, length: int, full: int, cells: int) -> slice:
    """A stretch of `full` pixels in `cells` cells."""
    first = min(round(start * cells / full), cells - 1)
    return slice(first, max(round((start + length) * cells / full), first + 1))


def pixel_numbers(pictures: int, height: int, width: int) -> Tensor:
    """Numbers of all latent pixels of a run, (B,1,h,w) int64."""
    return torch.arange(pictures * height * width).view(pictures, 1, height, width)


def read_views(numbers: Tensor, full: tuple[int, int]) -> list[View | None]:
    """What each row shows: numbers (R,1,h,w), cut from those of pictures of size `full` -> R views.

    A row whose corners do not bound a rectangle of one picture has None: its latents were shifted, resized or rearranged.
    """
    height, width = numbers.shape[-2:]
    corners = numbers[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist()
    expected = [0, width - 1, (height - 1) * full[1], (height - 1) * full[1] + width - 1]
    return [
        view_at(row[0], height, width, full) if [number - row[0] for number in row] == expected else None
        for row in corners
    ]


def view_at(first: int, height: int, width: int, full: tuple[int, int]) -> View | None:
    """The view whose first pixel has the number `first`; None where it would cross a border of the picture."""
    picture, pixel = divmod(first, full[0] * full[1])
    top, left = divmod(pixel, full[1])
    fits = top + height <= full[0] and left + width <= full[1]
    return View(picture, top, left, height, width, full) if fits else None
