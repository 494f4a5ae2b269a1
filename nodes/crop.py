"""Crop Subject (MoA): a square around the subject's face or region in a picture."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..moa_attention.subjects.crop import BOX_ORDERS, BoxOrder
from ..moa_attention.subjects.pictures import as_pictures
from .host.node_text import NodeText
from .host.pictures.boxes import find_candidates
from .host.pictures.crops import SKIP, STOP, WHOLE, crop_pictures
from .sockets import CATEGORY


class MoASubjectCrop(io.ComfyNode):
    """IMAGE -> square crops of one face or region of each picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASubjectCrop",
            display_name="Crop Subject (MoA)",
            category=CATEGORY,
            description="Cuts one face or region out of each picture, with room around it, for Encode Subject (MoA). It uses the "
            "connected boxes or mask. Without them it finds faces with OpenCV, if that is installed.",
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
                io.Image.Input("images", tooltip="One or several pictures of the subject."),
                io.Combo.Input(
                    "order",
                    options=list(BOX_ORDERS),
                    tooltip="The order in which the faces, boxes or regions of a picture are counted.",
                ),
                io.Int.Input(
                    "index",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="The number of the face, box or region in that order, counted from 1.",
                ),
                io.Float.Input(
                    "margin",
                    default=0.6,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Room on each side, as a fraction of the box's longer side. 0.6 turns a face into a portrait with "
                    "hair. Use 0 for boxes and masks of the whole subject.",
                ),
                io.Combo.Input(
                    "if_none",
                    options=[WHOLE, SKIP, STOP],
                    tooltip="What happens to a picture without the subject. whole image: the whole picture is used. skip the "
                    "subject: the picture is left out; if no picture remains, the prompt continues without the subject. stop: "
                    "the run ends with a message.",
                ),
                io.BoundingBox.Input(
                    "boxes",
                    optional=True,
                    force_input=True,
                    tooltip="From any detector, for example ComfyUI's Detect Face Landmarks (MediaPipe). If boxes are connected, "
                    "the mask is not used.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The area of the subject. If it has several separate regions, 'order' and 'index' select one.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="Square crops, at most 512 × 512 pixels. The batch is empty if every picture is left out.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="How many faces, boxes or regions each picture has, and which one is used.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        order: BoxOrder,
        index: int,
        margin: float,
        if_none: str,
        boxes: Any = None,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        pictures = as_pictures(images, "Crop Subject (MoA)")
        candidates = find_candidates(pictures, boxes, mask)
        crops, report = crop_pictures(pictures, candidates, order, index, margin, if_none)
        NodeText().show(report)
        shown = ui.PreviewImage(crops, cls=cls) if len(crops) else {"images": []}
        return io.NodeOutput(crops, report, ui=shown)
