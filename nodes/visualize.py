"""RouterVisualize: where the personalised branch spoke."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..moa_attention.picture import contact_sheet, heat_map, overlay, smooth_to
from ..moa_attention.trace import Call, Trace, average_map
from .load import CATEGORY
from .sockets import TraceSocket

LAYERS = {
    "trained": lambda spec: spec.supervised,
    "all": lambda spec: True,
    "self-attention": lambda spec: not spec.is_cross,
    "cross-attention": lambda spec: spec.is_cross,
    "input blocks": lambda spec: spec.name.startswith("input"),
    "middle block": lambda spec: spec.name.startswith("middle"),
    "output blocks": lambda spec: spec.name.startswith("output"),
}
MODES = ["overlay", "heat map", "contact sheet"]
SHEET_COLUMNS = 8


def chosen_steps(trace: Trace, first: int, last: int) -> list[list[Call]]:
    """Steps first..last of the run, -1 being the last.

    Raises: ValueError when nothing was recorded, or the range is empty.
    """
    steps = trace.steps()
    if not steps:
        raise ValueError(
            "The trace is empty: there was no sampling with this ApplyMoA. Connect the sampler to ApplyMoA's model and queue again "
            "(change the seed if the result was cached)."
        )
    stop = len(steps) if last < 0 else last + 1
    if not steps[first:stop]:
        raise ValueError(f"No steps from {first} to {last}: the run recorded steps 0 to {len(steps) - 1}.")
    return steps[first:stop]


class RouterVisualize(io.ComfyNode):
    """Trace and picture -> IMAGE and MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RouterVisualize",
            display_name="Visualize MoA Router",
            category=CATEGORY,
            description="Shows where the personalised branch spoke while the picture was made, and gives it as a mask, for "
            "example for a detailer or inpainting. Shows the last run that was sampled with the connected ApplyMoA.",
            search_aliases=["moa router", "heat map", "attention map", "subject mask", "daam"],
            is_output_node=True,
            inputs=[
                TraceSocket.Input("trace", tooltip="From the ApplyMoA whose model made the picture."),
                io.Image.Input("image", tooltip="The decoded picture, or batch of pictures, of that run."),
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    tooltip="Heat map over the picture, heat map alone, or a table of maps over layers and steps.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYERS),
                    tooltip="Which attention layers count. 'trained' are those whose routing the router loss shaped.",
                ),
                io.Int.Input(
                    "first_step", default=0, min=0, max=10_000, advanced=True, tooltip="First step that counts."
                ),
                io.Int.Input(
                    "last_step",
                    default=-1,
                    min=-1,
                    max=10_000,
                    advanced=True,
                    tooltip="Last step that counts, -1 for the last.",
                ),
                io.Float.Input(
                    "mask_threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the map's own range above which a pixel belongs to the mask; 0 gives the soft map.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The picture of the router."),
                io.Mask.Output(tooltip="Where the subjects are."),
            ],
        )

    @classmethod
    def execute(
        cls,
        trace: Trace,
        image: torch.Tensor,
        mode: str,
        layers: str,
        first_step: int = 0,
        last_step: int = -1,
        mask_threshold: float = 0.5,
    ) -> io.NodeOutput:
        if trace.ran and not trace.steps():
            return nobody_spoke(image)
        steps = chosen_steps(trace, first_step, last_step)
        names = [spec.name for spec in trace.layers if LAYERS[layers](spec)]
        grid = finest_grid(steps)
        calls = [call for step in steps for call in step]
        size = (image.shape[1], image.shape[2])
        maps = [smooth_to(average_map(calls, names, i, grid), size) for i in range(len(image))]
        if mode == "contact sheet":
            pictures = torch.stack([sheet(trace, steps, names, i) for i in range(len(image))])
        elif mode == "overlay":
            pictures = torch.stack([overlay(p[..., :3].cpu(), m) for p, m in zip(image, maps, strict=True)])
        else:
            pictures = torch.stack([heat_map(m) for m in maps])
        masks = torch.stack([to_mask(m, mask_threshold) for m in maps])
        return io.NodeOutput(pictures, masks, ui=ui.PreviewImage(pictures, cls=cls))


def nobody_spoke(image: torch.Tensor) -> io.NodeOutput:
    """What a run without subjects shows: pictures (B,H,W,3) with nothing over them, and empty masks."""
    nowhere = torch.zeros(image.shape[1:3])
    pictures = torch.stack([overlay(picture[..., :3].cpu(), nowhere) for picture in image])
    return io.NodeOutput(
        pictures, nowhere.expand(len(image), -1, -1), ui=ui.PreviewImage(pictures, cls=RouterVisualize)
    )


def finest_grid(steps: list[list[Call]]) -> tuple[int, int]:
    """The largest (h, w) among the recorded maps."""
    shapes = [m.shape[-2:] for m in steps[0][0].maps.values()]
    h, w = max(shapes, key=lambda s: s[0] * s[1])
    return h, w


def sheet(trace: Trace, steps: list[list[Call]], names: list[str], image: int) -> torch.Tensor:
    """Layers down, at most `SHEET_COLUMNS` steps across, each map on its own layer's grid."""
    picks = torch.linspace(0, len(steps) - 1, min(SHEET_COLUMNS, len(steps))).round().long().tolist()
    grids = {name: (m.shape[-2], m.shape[-1]) for name, m in steps[0][0].maps.items()}
    rows = [
        (name, [average_map(steps[k], [name], image, grids[name]) for k in picks]) for name in names if name in grids
    ]
    return contact_sheet(rows, [f"step {k}" for k in picks])


def to_mask(values: torch.Tensor, threshold: float) -> torch.Tensor:
    """(H,W) -> (H,W): the soft map stretched to 0..1, or 1 above the threshold."""
    stretched = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-6)
    return stretched if threshold == 0 else (stretched > threshold).float()
