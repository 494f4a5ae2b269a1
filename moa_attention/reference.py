"""A reference picture, made ready for an image encoder: the same for training and for use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 0.5
"""What stands where nothing of the subject is."""


def bounding_box(mask: Tensor) -> tuple[slice, slice]:
    """Rows and columns that hold the mask: (H,W) -> slices.

    Raises: ValueError when the mask is empty.
    """
    rows, columns = (mask > 0.5).any(dim=1).nonzero(), (mask > 0.5).any(dim=0).nonzero()
    if not len(rows):
        raise ValueError(
            "The subject's mask is empty: no pixel is above one half. Paint over the subject, or leave the mask out."
        )
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def square(picture: Tensor, side: int) -> Tensor:
    """Pad with grey to a square, then resize with antialiasing: (3,H,W) -> (3,side,side)."""
    _, h, w = picture.shape
    x, y = max(h - w, 0), max(w - h, 0)
    padded = F.pad(picture, (x // 2, x - x // 2, y // 2, y - y // 2), value=GREY)
    return F.interpolate(padded[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]


def prepare_reference(images: Tensor, masks: Tensor | None, side: int) -> Tensor:
    """Crop to the mask, grey out the rest, pad to a square, resize.

    Args:
        images: (K,H,W,3) in [0,1]; more channels are ignored.
        masks: (K,H',W') or (1,H',W'), 1 on the subject; None takes the whole picture.

    Returns: (K,3,side,side).
    Raises: ValueError when a mask is empty, or when there are neither one mask nor as many as pictures.
    """
    pictures = images[..., :3].movedim(-1, 1).float()
    if masks is None:
        return torch.stack([square(p, side) for p in pictures])
    if len(masks) not in (1, len(pictures)):
        raise ValueError(
            f"{len(pictures)} pictures but {len(masks)} masks; give one mask for all, or one for each picture."
        )
    masks = F.interpolate(masks[:, None].float(), size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    masks = masks.expand(len(pictures), -1, -1, -1)
    pictures = pictures * masks + GREY * (1 - masks)
    boxes = [bounding_box(m[0]) for m in masks]
    return torch.stack([square(p[:, rows, columns], side) for p, (rows, columns) in zip(pictures, boxes, strict=True)])
