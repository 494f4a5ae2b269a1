"""MoASubjectCrop: the face or region of a picture that is the subject, cut out as a square."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..moa_attention.crop import Box, Order, choose, one_size, window
from .boxes import Found, find_boxes
from .load import CATEGORY

WHOLE, SKIP, STOP = "whole image", "skip the subject", "stop"


class MoASubjectCrop(io.ComfyNode):
    """IMAGE -> square crops of one face or region of each picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASubjectCrop",
            display_name="Crop Subject (MoA)",
            category=CATEGORY,
            description="Cuts one face or region out of each picture, with room around it, for SubjectEncode. Takes connected boxes "
            "or a mask, else looks for faces with OpenCV where that is installed.",
            search_aliases=[
                "moa crop",
                "face crop",
                "crop face",
                "portrait",
                "face detection",
                "bounding box",
                "region",
            ],
            inputs=[
                io.Image.Input("images", tooltip="One picture or several, each with the subject in it."),
                io.Combo.Input(
                    "order",
                    options=["largest first", "left to right"],
                    tooltip="How faces, boxes or regions of a picture are counted.",
                ),
                io.Int.Input(
                    "index", default=1, min=1, max=100, tooltip="Which of them is the subject, counted from 1."
                ),
                io.Float.Input(
                    "margin",
                    default=0.6,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Room on each side, as a share of the box's longer side. 0.6 makes a portrait with hair of a face; "
                    "0 is for boxes and masks of the whole subject.",
                ),
                io.Combo.Input(
                    "if_none",
                    options=[WHOLE, SKIP, STOP],
                    tooltip="What becomes of a picture in which it is not found. skip the subject: it is left out, and when no "
                    "picture remains, the prompt goes on without the subject.",
                ),
                io.BoundingBox.Input(
                    "boxes",
                    optional=True,
                    force_input=True,
                    tooltip="From any detector, for example core's Detect Face Landmarks (MediaPipe). Goes before the mask.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where the subject is; of several separate regions one is chosen."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="Square crops, at most 512 pixels wide; none when all are skipped."
                ),
                io.String.Output(
                    display_name="report", tooltip="How many were found in each picture, and which one was taken."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        order: Order,
        index: int,
        margin: float,
        if_none: str,
        boxes: Any = None,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        found = find_boxes(images, boxes, mask)
        chosen = [choose(of_one, order, index) for of_one in found.boxes]
        if if_none == STOP and None in chosen:
            raise ValueError(refusal(found, chosen.index(None), order, index))
        pairs = zip(images[..., :3].float(), chosen, strict=True)
        crops = one_size([cut(image, box, margin) for image, box in pairs if box is not None or if_none == WHOLE])
        shown = ui.PreviewImage(crops, cls=cls) if len(crops) else {"images": []}
        return io.NodeOutput(crops, report(found, chosen, order, index, if_none), ui=shown)


def cut(image: torch.Tensor, box: Box | None, margin: float) -> torch.Tensor:
    """The square around a box of a picture (H,W,3), or the whole picture."""
    return image if box is None else image[window(box, margin, *image.shape[:2])]


def refusal(found: Found, picture: int, order: Order, index: int) -> str:
    """Why there is nothing to crop a picture to, and what can be done."""
    missing = f"MoASubjectCrop looked for {found.what} {index} ({order}) in picture {picture + 1} and found {counted(found, picture)}"
    if found.note:
        return f"{missing}: {found.note}"
    return (
        f"{missing}. Choose a smaller index, connect other boxes or a mask, take the picture out, or let 'if_none' use the whole "
        "picture or skip the subject."
    )


def counted(found: Found, picture: int) -> str:
    """How many were found in a picture."""
    return str(len(found.boxes[picture]) or "none")


def report(found: Found, chosen: list[Box | None], order: Order, index: int, if_none: str) -> str:
    """What was found in each picture and what was taken, for people."""
    lines = [f"looked for: {found.what} {index}, {order}", *([found.note] if found.note else [])]
    for picture, box in enumerate(chosen):
        taken = "whole picture" if if_none == WHOLE else "left out"
        if box is not None:
            taken = f"took {box.width:.0f} × {box.height:.0f} pixels at {box.x:.0f}, {box.y:.0f}"
        lines.append(f"picture {picture + 1}: found {counted(found, picture)}, {taken}")
    if if_none == SKIP and all(box is None for box in chosen):
        lines.append("no picture is left: the prompt goes on without the subject")
    return "\n".join(lines)
