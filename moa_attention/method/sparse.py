"""Sparse routing (ours): the router first, then the personalised branch only where its share is largest.

The other pixels are the prior's. With R_1 the share there, the layer's output differs from the dense one by
R_1 · (personal(z) − prior(z)) at those pixels and by nothing elsewhere: a pixel's error is at most its own R_1 times the
distance of the branches, and a layer's at most the R_1 mass left out times the largest such distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Chosen(NamedTuple):
    """The pixels of each row for which the personalised branch is computed: the same number in every row, for fixed shapes."""

    personal: Tensor
    """(B,K), their R_1."""
    indices: Tensor
    """(B·K,) int64, indices into all rows of (B,N) laid end to end."""

    def take(self, x: Tensor) -> Tensor:
        """(B,N,D) -> (B,K,D)"""
        return x.flatten(0, 1).index_select(0, self.indices).unflatten(0, self.personal.shape)

    def put(self, x: Tensor, values: Tensor) -> Tensor:
        """`x` (B,N,D) with the chosen pixels replaced by `values` (B,K,D); the other pixels keep their bits."""
        return x.flatten(0, 1).index_copy(0, self.indices, values.flatten(0, 1)).view_as(x)


def strongest(personal: Tensor, pixels: int | Sequence[int]) -> Chosen:
    """The `pixels` pixels of each row where R_1, (B,N), is largest.

    With a number for each row, all rows have as many pixels as the largest of these, and R_1 is 0 at those beyond their own.
    """
    rows, width = personal.shape
    equal = isinstance(pixels, int)
    values, indices = personal.topk(pixels if equal else min(max(pixels), width), dim=1, sorted=not equal)
    if not equal:
        for row, own in enumerate(pixels):
            values[row, own:] = 0
    if rows > 1:
        indices = indices + width * torch.arange(rows, device=indices.device)[:, None]
    return Chosen(values, indices.flatten())
