"""Crops of the selected face, box or region of each picture, and the report about them."""

from __future__ import annotations

from torch import Tensor

from ....moa_attention.subjects.crop import BoxOrder, PixelBox, select_box, square_around, stack_crops
from .boxes import Candidates

WHOLE, SKIP, STOP = "whole image", "skip the subject", "stop"
"""What happens to a picture without the selected box, by its name in the drop-down."""


def crop_pictures(
    images: Tensor, candidates: Candidates, order: BoxOrder, index: int, margin: float, if_none: str
) -> tuple[Tensor, str]:
    """Square crops of pictures (B,H,W,3), (K,side,side,3), and a report for the user.

    Args: if_none: `WHOLE`, `SKIP` or `STOP`.
    Raises: ValueError with `STOP` when a picture lacks the selected box.
    """
    selected = [select_box(boxes, order, index) for boxes in candidates.boxes]
    selection = f"{candidates.kind} {index}"
    if if_none == STOP and None in selected:
        raise ValueError(missing_message(candidates, selected.index(None), f"{selection} ({order})"))
    pairs = zip(images.float(), selected, strict=True)
    crops = stack_crops([crop(image, box, margin) for image, box in pairs if box is not None or if_none == WHOLE])
    return crops, crop_report(candidates, selected, f"{selection}, {order}", if_none)


def crop(image: Tensor, box: PixelBox | None, margin: float) -> Tensor:
    """The square around a box of a picture (H,W,3), or the whole picture without a box."""
    return image if box is None else image[square_around(box, margin, *image.shape[:2])]


def missing_message(candidates: Candidates, picture: int, selection: str) -> str:
    """Which box a picture lacks, and what the user can do."""
    found = (
        f"'Crop Subject (MoA)' needs {selection} in picture {picture + 1}, but found {found_count(candidates, picture)}"
    )
    if candidates.problem:
        return f"{found}: {candidates.problem}"
    return (
        f"{found}. Choose a smaller 'index', connect other boxes or a mask, remove the picture, or set 'if_none' to '{WHOLE}' or "
        f"'{SKIP}'."
    )


def found_count(candidates: Candidates, picture: int) -> str:
    """The number of boxes of a picture."""
    return str(len(candidates.boxes[picture]) or "none")


def crop_report(candidates: Candidates, selected: list[PixelBox | None], selection: str, if_none: str) -> str:
    """What each picture has and which part of it is used, for the user."""
    lines = [f"selection: {selection}", *([candidates.problem] if candidates.problem else [])]
    for picture, box in enumerate(selected):
        used = "used the whole picture" if if_none == WHOLE else "left out"
        if box is not None:
            used = f"used {box.width:.0f} × {box.height:.0f} pixels at {box.x:.0f}, {box.y:.0f}"
        lines.append(f"picture {picture + 1}: found {found_count(candidates, picture)}, {used}")
    if if_none == SKIP and all(box is None for box in selected):
        lines.append("no picture is left: the prompt continues without the subject")
    return "\n".join(lines)
