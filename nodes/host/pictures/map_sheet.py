"""Every map of a run in one grey picture, from which the page draws any step, layer and subject of a finished picture."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....moa_attention.run.trace import average_map
from .router_pictures import RouterPictures, evenly_chosen, finest_grid

STEPS, PICTURES, SIDE = 16, 4, 32
"""At most so many steps and pictures, and pixels of a map's longer side: the sheets stay small and quick to make."""


class MapSheet(NamedTuple):
    """The maps of one picture: subjects down, in each the steps down, layers across."""

    cells: Tensor
    """(S·T·h, L·w) shares in [0,1]"""
    index: dict[str, Any]
    """What the page must know: `subjects` and `layers` by name, the numbers of the `steps`, `cell` [w, h], `largest`, the sum of
    shares with the deepest colour."""


def map_sheets(shown: RouterPictures) -> list[MapSheet]:
    """One for each of the first pictures; none where no subject took part."""
    return [map_sheet(shown, image) for image in range(min(PICTURES, len(shown.images)))] if shown.steps else []


def map_sheet(shown: RouterPictures, image: int) -> MapSheet:
    """The maps of one picture on one small grid."""
    steps = evenly_chosen(range(len(shown.steps)), STEPS)
    layers = [name for name in shown.names if any(name in call.maps for step in shown.steps for call in step)]
    grid = small_grid(finest_grid(shown.steps))
    maps = [
        average_map(shown.steps[k], [name], image, grid, subject)
        for subject in shown.subjects
        for k in steps
        for name in layers
    ]
    rows = torch.stack(maps).unflatten(0, (-1, len(layers)))  # (S·T,L,h,w)
    cells = rows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    index = {"subjects": shown.subjects, "layers": layers, "steps": [shown.first + k for k in steps]}
    return MapSheet(cells, {**index, "cell": [grid[1], grid[0]], "largest": shown.largest})


def small_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """(h,w) with a longer side of at most `SIDE`."""
    factor = min(1.0, SIDE / max(grid))
    height, width = (max(1, round(factor * side)) for side in grid)
    return height, width
