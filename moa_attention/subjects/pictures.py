"""Pictures in the shapes that nodes pass around, in one shape (ours)."""

from __future__ import annotations

from torch import Tensor

SMALLEST = 8
"""Pixels of a side. A smaller picture, such as a placeholder of 1 × 1, shows nothing."""


def as_pictures(images: Tensor, node: str, name: str = "images") -> Tensor:
    """Pictures (B,H,W,3), or with further channels such as transparency -> (B,H,W,3).

    Args: node: the title of the node that receives them, and `name` that of its input, for messages.
    Raises: ValueError for any other shape, and for pictures below `SMALLEST`.
    """
    size = " × ".join(map(str, images.shape))
    if images.ndim != 4 or images.shape[-1] < 3:
        raise ValueError(
            f"'{node}' expects pictures of height × width × 3 colours at '{name}', but received {size}. Connect an IMAGE output "
            "with colours."
        )
    if len(images) and min(images.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"'{node}' expects pictures of at least {SMALLEST} × {SMALLEST} pixels at '{name}', but received "
            f"{images.shape[2]} × {images.shape[1]}. Connect a picture that shows the subject."
        )
    return images[..., :3]
