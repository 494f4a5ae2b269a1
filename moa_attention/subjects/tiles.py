"""The tiles of a reference picture that is too large or too long for one square. Their sizes and places are those of IPAdapter_plus."""

from __future__ import annotations

import math
from typing import NamedTuple

TILE = 256
"""Pixels of a tile's side."""
NEARLY_SQUARE = (0.75, 1.33)
"""Height by width between which a picture is cut to a square of two by two tiles."""
MOST = 4
"""Tiles of a long picture."""


class Tiling(NamedTuple):
    """How a picture is cut, resized and cut again; all sizes are (h, w)."""

    crop: tuple[int, int]
    """The part of the picture that is resized, its centre."""
    size: tuple[int, int]
    """To which it is resized."""
    kept: tuple[int, int]
    """The part of the resized picture that the tiles cover, its centre."""
    corners: list[tuple[int, int]]
    """Row and column of each tile in it, from left to right and downwards."""


def tiling(height: int, width: int) -> Tiling:
    """The tiles of a picture: four of one that is nearly square; else as many as its length needs, at most `MOST`."""
    low, high = NEARLY_SQUARE
    if low < height / width < high:
        side, size = min(height, width), (2 * TILE, 2 * TILE)
        return Tiling((side, side), size, size, corners(*size))
    size = (TILE, int(TILE * width / height)) if height < width else (int(TILE * height / width), TILE)
    kept = (min(size[0], MOST * TILE), min(size[1], MOST * TILE))
    return Tiling((height, width), size, kept, corners(*kept))


def corners(height: int, width: int) -> list[tuple[int, int]]:
    """Of tiles that cover a picture and overlap each other alike."""
    return [(y, x) for y in starts(height) for x in starts(width)]


def starts(length: int) -> list[int]:
    """Where tiles begin that cover a length."""
    count = math.ceil(length / TILE)
    overlap = max(0.0, (count * TILE - length) / max(count - 1, 1))
    return [int(i * (TILE - overlap)) for i in range(count)]
