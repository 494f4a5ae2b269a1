"""The boxes that a picture can be cropped to: connected ones, else a mask's regions, else detected faces."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor

from ....moa_attention.subjects.crop import PixelBox
from ....moa_attention.subjects.masks import as_masks
from ....moa_attention.subjects.pictures import SMALLEST
from ....moa_attention.subjects.regions import regions
from .face_detector import face_detector

CORE_DETECTOR = "comfy_extras.nodes_mediapipe"
"""The host's module of 'Detect Face Landmarks (MediaPipe)', new in 0.23."""


class Candidates(NamedTuple):
    """The boxes of a batch of pictures."""

    kind: str
    """What they surround, for messages: face, box or region."""
    boxes: list[list[PixelBox]]
    """For each picture, those that lie at least partly in it and have `SMALLEST` pixels."""
    problem: str = ""
    """The reason why no boxes could be found, for messages."""


def find_candidates(images: Tensor, boxes: Any, mask: Tensor | None) -> Candidates:
    """The boxes of pictures (B,H,W,3), from the first of `boxes`, `mask` and a face detector that there is.

    Raises: ValueError when boxes or masks are for another number of pictures, or boxes are malformed.
    """
    _, height, width, _ = images.shape
    if boxes is not None:
        kind, found = "box", read_boxes(boxes, len(images))
    elif mask is not None:
        kind, found = "region", mask_boxes(mask, len(images), height, width)
    else:
        detect = face_detector()
        if detect is None:
            return Candidates("face", [[] for _ in images], no_detector())
        kind, found = "face", [detect(image) for image in images]
    return Candidates(kind, [[box for box in of_one if is_visible(box, height, width)] for of_one in found])


def is_visible(box: PixelBox, height: int, width: int) -> bool:
    """Whether a box lies in the picture, and is large enough to show a subject."""
    return box.overlaps(height, width) and max(box.width, box.height) >= SMALLEST


def no_detector() -> str:
    """The ways to boxes without a face detector. A node of the host is named only where the host has it."""
    core = "ComfyUI's 'Detect Face Landmarks (MediaPipe)' or of another" if find_spec(CORE_DETECTOR) else "a"
    return (
        f"no face detector is installed. Connect the bboxes of {core} detector, connect a mask, or install OpenCV: "
        'pip install "opencv-python-headless<5"'
    )


def read_boxes(boxes: Any, pictures: int) -> list[list[PixelBox]]:
    """The host's BOUNDING_BOX: a dict, a list of them for every picture, or a list of lists, one for each picture.

    Raises: ValueError as `read_box` and `one_list_each`.
    """
    nested = [[boxes]] if isinstance(boxes, dict) else boxes if boxes and isinstance(boxes[0], list) else [boxes]
    return one_list_each([[read_box(box) for box in of_one] for of_one in nested], pictures, "boxes")


def read_box(box: Any) -> PixelBox:
    """Raises: ValueError when the box of another pack is not a BOUNDING_BOX."""
    try:
        return PixelBox(*(float(box[key]) for key in PixelBox._fields))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'Crop Subject (MoA)' expects boxes with {', '.join(PixelBox._fields)}, the format of ComfyUI's own detectors, but "
            f"received {box}. Connect the output of a node that gives BOUNDING_BOX."
        ) from error


def mask_boxes(mask: Tensor, pictures: int, height: int, width: int) -> list[list[PixelBox]]:
    """Boxes of the regions of masks, one for each picture or one for all, in pixels of pictures that may have another size.

    Raises: ValueError as `as_masks` and `one_list_each`.
    """
    masks = as_masks(mask, "Crop Subject (MoA)")
    down, across = height / masks.shape[-2], width / masks.shape[-1]
    scaled = [
        [PixelBox(box.x * across, box.y * down, box.width * across, box.height * down) for box in regions(one.cpu())]
        for one in masks
    ]
    return one_list_each(scaled, pictures, "masks")


def one_list_each(lists: list[list[PixelBox]], pictures: int, name: str) -> list[list[PixelBox]]:
    """One list of boxes for each picture; a single list is used for all.

    Raises: ValueError when there is neither one list nor one for each picture.
    """
    if len(lists) not in (1, pictures):
        raise ValueError(
            f"'Crop Subject (MoA)' received {pictures} pictures but {name} for {len(lists)}. Connect {name} for each picture, or "
            "for a single one, which are then used for all."
        )
    return lists * pictures if len(lists) == 1 else lists
