"""Where the boxes of a crop come from: connected ones, else a mask's regions, else a face detector."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..moa_attention.crop import Box
from ..moa_attention.regions import regions
from .face_detector import face_detector

NO_DETECTOR = (
    "no face detector was found. Connect the bboxes of core's 'Detect Face Landmarks (MediaPipe)' or of another detector, or a "
    'mask, or install one: pip install "opencv-python-headless<5"'
)


class Found(NamedTuple):
    """What was found in a batch of pictures."""

    what: str
    """The kind of thing that was looked for, for people."""
    boxes: list[list[Box]]
    """Of each picture, those that lie in it."""
    note: str = ""
    """Why nothing could be found, for people."""


def find_boxes(images: torch.Tensor, boxes: Any, mask: torch.Tensor | None) -> Found:
    """Look into pictures (B,H,W,3) for something to crop to.

    Raises: ValueError when boxes or masks are for another number of pictures.
    """
    _, height, width, _ = images.shape
    if boxes is not None:
        what, found = "box", read_boxes(boxes, len(images))
    elif mask is not None:
        what, found = "region", mask_regions(mask, len(images), height, width)
    else:
        detect = face_detector()
        if detect is None:
            return Found("face", [[] for _ in images], NO_DETECTOR)
        what, found = "face", [detect(image) for image in images]
    return Found(what, [[box for box in of_one if box.within(height, width)] for of_one in found])


def read_boxes(boxes: Any, pictures: int) -> list[list[Box]]:
    """The host's BOUNDING_BOX: a dict, a list of them for every picture, or a list of lists, one for each picture.

    Raises: ValueError as `read_box` and `for_each`.
    """
    nested = [[boxes]] if isinstance(boxes, dict) else boxes if boxes and isinstance(boxes[0], list) else [boxes]
    return for_each([[read_box(box) for box in of_one] for of_one in nested], pictures, "boxes")


def read_box(box: Any) -> Box:
    """Raises: ValueError when another pack's box is no BOUNDING_BOX."""
    try:
        return Box(*(float(box[key]) for key in Box._fields))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"MoASubjectCrop wants boxes with {', '.join(Box._fields)}, as ComfyUI's own detectors give them; found {box}."
        ) from error


def mask_regions(mask: torch.Tensor, pictures: int, height: int, width: int) -> list[list[Box]]:
    """Boxes of the regions of masks (B or 1,h,w), in pixels of pictures that may have another size."""
    down, across = height / mask.shape[-2], width / mask.shape[-1]
    scaled = [
        [Box(box.x * across, box.y * down, box.width * across, box.height * down) for box in regions(one.cpu())]
        for one in mask
    ]
    return for_each(scaled, pictures, "a mask")


def for_each(found: list[list[Box]], pictures: int, name: str) -> list[list[Box]]:
    """One list for each picture, a single one serving all.

    Raises: ValueError when there are neither one nor as many as pictures.
    """
    if len(found) not in (1, pictures):
        raise ValueError(
            f"MoASubjectCrop got {pictures} pictures but {name} for {len(found)}. Give one for all, or one for each picture."
        )
    return found * pictures if len(found) == 1 else found
