"""What Visualize MoA Router shows of a sampling run: heat maps, contact sheets, subjects in colours, and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ....moa_attention.method.spec import LayerSpec
from ....moa_attention.pictures import coloured, contact_sheet, heat_map, legend, overlay, smooth_to, to_mask
from ....moa_attention.run.trace import RecordedCall, Trace, average_map

PictureMode = Literal["overlay", "heat map", "contact sheet", "subjects", "animation"]
MODES: tuple[PictureMode, ...] = get_args(PictureMode)
LAYERS: dict[str, Callable[[LayerSpec], bool]] = {
    "trained": lambda spec: spec.supervised,
    "all": lambda spec: True,
    "self-attention": lambda spec: not spec.is_cross,
    "cross-attention": lambda spec: spec.is_cross,
    "input blocks": lambda spec: spec.name.startswith("input"),
    "middle block": lambda spec: spec.name.startswith("middle"),
    "output blocks": lambda spec: spec.stage == "output",
}
"""The layers whose maps are averaged, by their name in the drop-down."""
TOGETHER, EACH = "together", "each"
SUBJECTS = (TOGETHER, EACH, *map(str, range(1, 9)))
"""All subjects in one map, one map for each, or the subject of that number."""
SHEET_COLUMNS, FRAMES = 8, 48


class RouterPictures:
    """Pictures of the router and masks of the subjects, for the decoded images (B,H,W,3) of a run.

    Args:
        layers: key of `LAYERS`.
        steps: first and last, as in `selected_steps`.
        subject: entry of `SUBJECTS`.
    Raises: ValueError as `selected_steps`, `chosen_subjects` and `average_map`.
    """

    def __init__(self, trace: Trace, images: Tensor, layers: str, steps: tuple[int, int], subject: str = TOGETHER):
        self.images, self.size = images[..., :3].cpu(), (images.shape[1], images.shape[2])
        self.subjects, self.note = trace.subjects(), trace.note
        without_subjects = trace.ran and not trace.steps()  # the prior had every pixel
        self.steps, self.first = [] if without_subjects else selected_steps(trace, *steps), steps[0]
        self.names = [spec.name for spec in trace.layers if LAYERS[layers](spec)]
        self.chosen = chosen_subjects(self.subjects, subject) if self.steps else [None]
        each = [self.map(i, name) for i in range(len(images)) for name in self.chosen]
        self.maps = torch.stack(each).unflatten(0, (len(images), len(self.chosen)))
        """(B,S,H,W) shares of the chosen subjects in [0,1]; of all together S is 1."""
        self.largest = float(self.maps.sum(dim=1).max())
        """With the deepest colour: the same in all pictures and steps, so that they can be compared."""

    def map(self, image: int, subject: str | None, steps: Sequence[list[RecordedCall]] | None = None) -> Tensor:
        """The share of one subject, or of all together (None), in a picture: -> (H,W)."""
        if not self.steps:
            return torch.zeros(self.size)
        calls = [call for step in steps or self.steps for call in step]
        return smooth_to(average_map(calls, self.names, image, finest_grid(self.steps), subject), self.size)

    def masks(self, threshold: float) -> Tensor:
        """One for each subject of each picture, picture by picture: -> (B·S,H,W). `threshold` is that of `to_mask`."""
        return torch.stack([to_mask(m, threshold) for m in self.maps.flatten(0, 1)])

    def pictures(self, mode: PictureMode) -> Tensor:
        """(B·S,H,W,3) with a picture for each mask; contact sheets have a size of their own.

        In the mode `subjects` one for each image, and for an animation one for each step, with a legend below.
        """
        images = range(len(self.images))
        if mode == "contact sheet" and self.steps:
            return torch.stack([self.sheet(i, name) for i in images for name in self.chosen])
        if mode == "subjects" and self.steps:
            return torch.stack([self.with_legend(self.in_colours(i, self.steps)) for i in images])
        if mode == "animation" and self.steps:
            return torch.stack([self.frame(step) for step in evenly_chosen(self.steps, FRAMES)])
        if mode == "heat map" and self.steps:
            return torch.stack([heat_map(m) for m in self.maps.flatten(0, 1)])
        return torch.stack([overlay(self.images[i], m) for i in images for m in self.maps[i]])

    def report(self) -> str:
        """The mean share of each subject in the pictures, and the note on the run, for users."""
        lines = []
        for subject, name in zip(self.subjects, listed(self.subjects), strict=True) if self.steps else ():
            share = torch.stack([self.map(i, subject) for i in range(len(self.images))]).mean()
            lines.append(f"{name}: {100 * float(share):.0f} % share, mean over the picture")
        return "\n".join([*lines, self.note])

    def sheet(self, image: int, subject: str | None) -> Tensor:
        """Layers down, at most `SHEET_COLUMNS` steps across, each map on its own layer's grid: -> (H,W,3)."""
        columns, grids = evenly_chosen(range(len(self.steps)), SHEET_COLUMNS), layer_grids(self.steps)
        rows = [
            (name, [average_map(self.steps[k], [name], image, grids[name], subject) for k in columns])
            for name in self.names
            if name in grids
        ]
        return contact_sheet(rows, [f"step {k}" for k in columns])

    def in_colours(self, image: int, steps: Sequence[list[RecordedCall]]) -> Tensor:
        """A picture with its subjects in their colours, in the mean over some steps: -> (H,W,3)."""
        shown = self.subjects if None in self.chosen else [name for name in self.chosen if name]
        shares = torch.stack([self.map(image, name, steps) for name in shown])
        return coloured(self.images[image], shares, [self.subjects.index(name) for name in shown], self.largest)

    def frame(self, step: list[RecordedCall]) -> Tensor:
        """All pictures side by side in one step."""
        return self.with_legend(torch.cat([self.in_colours(i, [step]) for i in range(len(self.images))], dim=1))

    def with_legend(self, picture: Tensor) -> Tensor:
        """A picture above the names of all subjects."""
        return torch.cat((picture, legend(listed(self.subjects), picture.shape[1])))


def listed(names: Sequence[str]) -> list[str]:
    """Names with the numbers by which they are chosen."""
    return [f"{i} {name}" for i, name in enumerate(names, start=1)]


def chosen_subjects(names: Sequence[str], subject: str) -> list[str | None]:
    """The names of an entry of `SUBJECTS`; None stands for all together.

    Raises: ValueError when the run has no subject of that number.
    """
    if subject == TOGETHER:
        return [None]
    if subject == EACH:
        return list(names)
    if int(subject) > len(names):
        raise ValueError(
            f"'subject' in 'Visualize MoA Router' is {subject}, but the run has {len(names)}: {', '.join(listed(names))}. "
            "Choose another number."
        )
    return [names[int(subject) - 1]]


def evenly_chosen(items: Sequence, count: int) -> list:
    """At most `count` of the items, evenly spread, with the first and the last."""
    return [items[k] for k in torch.linspace(0, len(items) - 1, min(count, len(items))).round().long().tolist()]


def selected_steps(trace: Trace, first: int, last: int) -> list[list[RecordedCall]]:
    """The calls of steps first..last of the run; -1 is the last step.

    Raises: ValueError when nothing was recorded, or the range is empty.
    """
    steps = trace.steps()
    if not steps:
        raise ValueError(
            "The trace is empty: no sampler has run with the model of this 'Apply MoA'. Connect that model to the sampler and "
            "queue again. If ComfyUI used a cached result, change the seed."
        )
    stop = len(steps) if last < 0 else last + 1
    if not steps[first:stop]:
        raise ValueError(
            f"No steps from {first} to {last}: the run recorded steps 0 to {len(steps) - 1}. Change 'first_step' or 'last_step'."
        )
    return steps[first:stop]


def finest_grid(steps: list[list[RecordedCall]]) -> tuple[int, int]:
    """The largest (h, w) of a picture among the grids of the recorded layers."""
    return max(layer_grids(steps).values(), key=lambda shape: shape[0] * shape[1])


def layer_grids(steps: list[list[RecordedCall]]) -> dict[str, tuple[int, int]]:
    """The grid of a picture by layer name; maps of tiles and area prompts have a part of it."""
    call = steps[0][0]
    view = next((view for view in call.views if view is not None), None)
    own = {name: (m.shape[-2], m.shape[-1]) for name, m in call.maps.items()}
    return own if view is None else {name: view.grid(grid) for name, grid in own.items()}
