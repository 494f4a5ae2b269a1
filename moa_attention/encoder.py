"""A small image encoder that can travel inside an adapter file, for bases that have no CLIP vision model."""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 128, 192)


class ImageEncoder(nn.Module):
    """Four strided convolution stages, then a projection of what is left: one global feature per picture (ours)."""

    picture = 64
    """Side of the square picture it looks at, in pixels."""

    def __init__(
        self,
        image_width: int,
        *,
        operations: ModuleType | type = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        place = {"device": device, "dtype": dtype}
        widths = (3, *WIDTHS)
        self.down = nn.ModuleList(
            operations.Conv2d(a, b, 4, stride=2, padding=1, **place) for a, b in zip(widths, WIDTHS, strict=False)
        )
        self.refine = nn.ModuleList(operations.Conv2d(b, b, 3, padding=1, **place) for b in WIDTHS)
        self.norms = nn.ModuleList(operations.GroupNorm(8, b, **place) for b in WIDTHS)
        self.project = operations.Linear(WIDTHS[-1] * (self.picture // 2 ** len(WIDTHS)) ** 2, image_width, **place)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B,3,64,64) in [0,1] -> (B,F), each of mean 0 and variance 1."""
        x = pictures * 2 - 1
        for down, refine, norm in zip(self.down, self.refine, self.norms, strict=True):
            x = F.silu(norm(down(x)))
            x = x + F.silu(refine(x))
        x = self.project(x.flatten(1))
        return F.layer_norm(x, x.shape[-1:])
