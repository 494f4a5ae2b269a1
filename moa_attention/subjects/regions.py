"""The connected regions of a mask, by SciPy's labelling (ours)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from torch import Tensor

from .crop import PixelBox

MIN_AREA = 0.01
"""Area of a region's box, as a share of the largest one's, below which the region is taken for a stray brush mark."""
NEIGHBOURS = np.ones((3, 3))
"""Pixels connect along their sides and at their corners."""


def regions(mask: Tensor) -> list[PixelBox]:
    """Boxes of the connected regions of a mask (H,W) above one half, in reading order of their first pixels."""
    labels = np.empty(mask.shape, np.int32)
    ndimage.label((mask > 0.5).numpy(), NEIGHBOURS, output=labels)
    boxes = [
        PixelBox(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        for rows, columns in ndimage.find_objects(labels)
    ]
    largest = max((box.area for box in boxes), default=0.0)
    return [box for box in boxes if box.area >= MIN_AREA * largest]
