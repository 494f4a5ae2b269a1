"""Sparse routing (ours): the router first, then the personalised branch for those pixels only that it wins.

Where a pixel is left out the prior speaks alone. With R_1 the route there, the layer's output differs from the dense one by
R_1 · (personal(z) − prior(z)) at those pixels and by nothing at the others: a pixel's error is at most its own R_1 times
the distance of the branches, and a layer's at most the R_1 mass left out times the largest such distance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Winners(NamedTuple):
    """The pixels of each row for which the personalised branch is computed: as many in every row, so that shapes stand still."""

    personal: Tensor
    """(B,K), their R_1."""
    places: Tensor
    """(B·K,) int64, counted through all rows of (B,N)."""

    def take(self, x: Tensor) -> Tensor:
        """(B,N,D) -> (B,K,D)"""
        return x.flatten(0, 1).index_select(0, self.places).unflatten(0, self.personal.shape)

    def put(self, x: Tensor, chosen: Tensor) -> Tensor:
        """`x` (B,N,D) with the winners replaced by `chosen` (B,K,D); the other pixels keep their bits."""
        return x.flatten(0, 1).index_copy(0, self.places, chosen.flatten(0, 1)).view_as(x)


def strongest(personal: Tensor, pixels: int) -> Winners:
    """The `pixels` places of each row where R_1, (B,N), is largest."""
    rows, width = personal.shape
    values, places = personal.topk(pixels, dim=1, sorted=False)
    if rows > 1:
        places = places + width * torch.arange(rows, device=places.device)[:, None]
    return Winners(values, places.flatten())
