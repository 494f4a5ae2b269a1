"""The preparation of reference pictures for an image encoder: the same for training and for inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .pictures import SMALLEST

GREY = 0.5
"""Fills every pixel outside the subject."""
STRIP = 64
"""Rows that are padded and resized at once."""


def bounding_box(mask: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle around a mask: (H,W) -> slices.

    Raises: ValueError when the mask is empty.
    """
    rows, columns = (mask > 0.5).any(dim=1).nonzero(), (mask > 0.5).any(dim=0).nonzero()
    if not len(rows):
        raise ValueError(
            "The subject's mask is empty: no pixel is above one half. Paint over the subject, or use no mask."
        )
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def fit_to_square(picture: Tensor, side: int) -> Tensor:
    """Pad with grey to a square, then resize with antialiasing: (3,H,W) -> (3,side,side).

    Rows are shrunk before the columns are padded, in strips, so that no square of the longer side is ever in memory.
    """
    _, h, w = picture.shape
    x, y = max(h - w, 0), max(w - h, 0)
    strips = (F.pad(strip, (x // 2, x - x // 2), value=GREY) for strip in picture.split(STRIP, dim=1))
    rows = [resized(strip, (strip.shape[1], side)) for strip in strips]
    grey = resized(picture.new_full((len(picture), 1, max(h, w)), GREY), (1, side))
    padded = torch.cat([grey.expand(-1, y // 2, -1), *rows, grey.expand(-1, y - y // 2, -1)], dim=1)
    return resized(padded, (side, side))


def centre_of(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of pictures, of size (h, w): (K,C,H,W) -> (K,C,h,w)."""
    top, left = (round((whole - part) / 2) for whole, part in zip(pictures.shape[-2:], size, strict=True))
    return pictures[..., top : top + size[0], left : left + size[1]]


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(3,h,w) -> (3,H,W), bilinear with antialiasing."""
    return F.interpolate(picture[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def prepare_reference(images: Tensor, masks: Tensor | None, side: int) -> Tensor:
    """Crop each picture to its mask, fill the rest with grey, pad to a square, resize.

    Args:
        images: (K,H,W,3) in [0,1]; further channels are ignored.
        masks: (K,H',W') or (1,H',W'), 1 on the subject; None keeps the whole picture.

    Returns: (K,3,side,side).
    Raises: ValueError when a mask is empty or shows less than `SMALLEST` pixels of a picture, or when there is neither one mask
        for all nor one for each picture.
    """
    pictures = rearrange(images[..., :3], "k h w c -> k c h w").float()
    if masks is None:
        return torch.stack([fit_to_square(p, side) for p in pictures])
    if len(masks) not in (1, len(pictures)):
        raise ValueError(
            f"There are {len(pictures)} pictures but {len(masks)} masks. Connect one mask for all pictures, or one for each."
        )
    masks = F.interpolate(masks[:, None].to(pictures), size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    return torch.stack(
        [
            fit_to_square(cut_to_mask(p, m[0]), side)
            for p, m in zip(pictures, masks.expand(len(pictures), -1, -1, -1), strict=True)
        ]
    )


def cut_to_mask(picture: Tensor, mask: Tensor) -> Tensor:
    """The smallest rectangle around a mask, grey outside of it: (3,H,W) (H,W) -> (3,h,w).

    Raises: ValueError when the mask is empty, or the rectangle is below `SMALLEST`.
    """
    rows, columns = bounding_box(mask)
    picture, mask = picture[:, rows, columns], mask[rows, columns]
    if max(mask.shape) < SMALLEST:
        raise ValueError(
            f"The subject's mask covers only {mask.shape[1]} × {mask.shape[0]} pixels of the picture. Paint over the whole subject, or "
            "use a larger picture."
        )
    return picture * mask + GREY * (1 - mask)
