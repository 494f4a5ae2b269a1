"""Reference pictures in tiles, each of which is encoded by itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from comfy.utils import common_upscale
from torch import Tensor

from ....moa_attention.subjects.reference import centre_of
from ....moa_attention.subjects.tiles import TILE, tiling


def cut_into_tiles(pictures: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (K,H,W,3) in [0,1] -> of each tile its pictures (K,TILE,TILE,3) and its area (h,w), 1 in the tile."""
    found = tiling(pictures.shape[1], pictures.shape[2])
    cut = centre_of(pictures.movedim(-1, 1), found.crop)
    resized = common_upscale(cut, found.size[1], found.size[0], "lanczos", "disabled")
    kept = centre_of(resized, found.kept).movedim(1, -1)
    for y, x in found.corners:
        rows, columns = slice(y, y + TILE), slice(x, x + TILE)
        area = torch.zeros(found.kept)
        area[rows, columns] = 1
        yield kept[:, rows, columns], area
