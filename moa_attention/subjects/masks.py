"""Masks in the shapes that nodes pass around, in one shape (ours)."""

from __future__ import annotations

from torch import Tensor


def as_masks(mask: Tensor, node: str, name: str = "mask") -> Tensor:
    """A mask of (H,W), (B,H,W) or (B,1,H,W) -> (B,H,W) float32.

    Args: node: the title of the node that receives it, and `name` that of its input, for messages.
    Raises: ValueError for any other shape, for a mask without pixels, and for one with NaN or infinity.
    """
    masks = mask[None] if mask.ndim == 2 else mask.squeeze(1) if mask.ndim == 4 else mask
    if masks.ndim != 3 or not masks.numel():
        raise ValueError(
            f"'{node}' expects a mask of height × width, or a batch of such masks, at '{name}', but received "
            f"{' × '.join(map(str, mask.shape)) or 'a single number'}. Connect a MASK output; 'Convert Image to Mask' makes one of an image."
        )
    if not masks.isfinite().all():
        raise ValueError(
            f"'{node}' received a mask with NaN or infinity at '{name}'. The node that made it divided by zero or overflowed: connect another "
            "mask."
        )
    return masks.float()
