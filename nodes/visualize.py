"""Visualize MoA Router: where the personalised branch contributes to a picture."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import torch
from comfy_api.latest import io, ui

from ..moa_attention.run.trace import Trace
from ..moa_attention.subjects.pictures import as_pictures
from .host.node_text import NodeText
from .host.pictures.map_sheet import PICTURES, map_sheets
from .host.pictures.router_pictures import LAYERS, MODES, SUBJECTS, TOGETHER, PictureMode, RouterPictures
from .sockets import CATEGORY, TraceSocket

FRAMES_A_SECOND = 6


class RouterVisualize(io.ComfyNode):
    """Trace and picture -> IMAGE and MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RouterVisualize",
            display_name="Visualize MoA Router",
            category=CATEGORY,
            description="Shows where the subjects contribute to a picture, and gives a mask of them for a detailer or for inpainting. "
            "It shows the last run that was sampled with the connected Apply MoA.",
            search_aliases=["moa router", "heat map", "attention map", "subject mask", "daam"],
            is_output_node=True,
            inputs=[
                TraceSocket.Input("trace", tooltip="From the Apply MoA whose model made the picture."),
                io.Image.Input("image", tooltip="The decoded picture, or batch of pictures, of that run."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    tooltip="overlay: the heat map over the picture. heat map: the map alone. contact sheet: a table of maps, with "
                    "layers down and steps across. subjects: each subject in its own colour, with a legend. animation: the same "
                    "step by step, as a batch of frames.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYERS),
                    tooltip="The attention layers whose maps are averaged. trained: the layers that were used in the router loss.",
                ),
                io.Int.Input(
                    "first_step", default=0, min=0, max=10_000, advanced=True, tooltip="The first step of the average."
                ),
                io.Int.Input(
                    "last_step",
                    default=-1,
                    min=-1,
                    max=10_000,
                    advanced=True,
                    tooltip="The last step of the average; -1 is the last step of the run.",
                ),
                io.Float.Input(
                    "mask_threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Pixels above this fraction of the map's range belong to the mask. 0 gives a soft mask.",
                ),
                io.Combo.Input(
                    "subject",
                    options=list(SUBJECTS),
                    default=TOGETHER,
                    optional=True,
                    tooltip="together: one map and one mask of all subjects. each: a map and a mask for every subject, as a batch, "
                    "picture by picture. 1, 2, …: the subject of that number, in the order of the prompt; the legend of the mode "
                    "'subjects' shows the numbers.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="The heat maps: dark blue is the base model, pale yellow the subjects. Or the subjects in their colours."
                ),
                io.Mask.Output(tooltip="The area of the subjects, or of each of them."),
                io.String.Output(
                    display_name="report",
                    tooltip="The share of each subject, and why a subject took no part. The node shows it, too.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        trace: Trace,
        image: torch.Tensor,
        mode: PictureMode,
        layers: str,
        first_step: int = 0,
        last_step: int = -1,
        mask_threshold: float = 0.5,
        subject: str = TOGETHER,
    ) -> io.NodeOutput:
        images = as_pictures(image, "Visualize MoA Router", "image")
        shown = RouterPictures(trace, images, layers, (first_step, last_step), subject)
        pictures = shown.pictures(mode)
        report = shown.report()
        NodeText().show(report)
        parts = (preview(pictures, mode, cls), ui.PreviewText(report))
        shown_here = {name: entry for part in parts for name, entry in part.as_dict().items()}
        shown_here["moa_maps"] = explorable(shown, cls)
        return io.NodeOutput(pictures, shown.masks(mask_threshold), report, ui=shown_here)


def preview(pictures: torch.Tensor, mode: PictureMode, cls: type[io.ComfyNode]) -> Any:
    """What the node shows: an animation moves."""
    if mode != "animation":
        return ui.PreviewImage(pictures, cls=cls)
    file = ui.ImageSaveHelper.save_animated_webp(
        pictures,
        f"moa_router_{uuid4().hex[:8]}",
        io.FolderType.temp,
        cls,
        fps=FRAMES_A_SECOND,
        lossless=False,
        quality=90,
        method=4,
    )
    return ui.SavedImages([file], is_animated=True)


def explorable(shown: RouterPictures, cls: type[io.ComfyNode]) -> list[dict[str, Any]]:
    """For the sliders in the page: of each picture `picture` and `sheet`, files in the temporary folder, and `MapSheet.index`."""
    sheets = map_sheets(shown)
    if not sheets:
        return []
    pictures = saved(list(shown.images[:PICTURES]), cls)
    grey = saved([sheet.cells[..., None].expand(-1, -1, 3) for sheet in sheets], cls)
    each = zip(pictures, grey, sheets, strict=True)
    return [{"picture": picture, "sheet": cells, **sheet.index} for picture, cells, sheet in each]


def saved(pictures: list[torch.Tensor], cls: type[io.ComfyNode]) -> list[Any]:
    """Pictures (H,W,3) as files in the temporary folder."""
    name = f"moa_map_{uuid4().hex[:8]}"
    return ui.ImageSaveHelper.save_images(pictures, name, io.FolderType.temp, cls, compress_level=1)
