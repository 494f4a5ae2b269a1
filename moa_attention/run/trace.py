"""The record of one sampling run: the share of the personalised branch by step and layer, and the part of it that each subject has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..method.attention import resize
from ..method.layer import Observe, Routing
from ..method.spec import LayerSpec
from .listener import CallInfo, RunListener
from .subject_parts import SubjectParts, layers_to_read
from .view import View


@dataclass
class RecordedCall:
    """One U-Net call that had subjects."""

    sigma: Tensor
    """() noise level."""
    views: Sequence[View | None]
    """What each row shows, if it is known."""
    names: Sequence[Sequence[str]] = ()
    """Each row's subjects by slot."""
    maps: dict[str, Tensor] = field(default_factory=dict)
    """R_1 by layer name, (R,h,w) float16."""
    parts: Tensor | None = None
    """(R,S,h,w) float16, the part of R_1 that each subject has; None where no row has several, or nothing distinguished them."""

    def part(self, row: int, subject: str, grid: tuple[int, int]) -> Tensor | float:
        """The part (h,w) of R_1 on a grid that a subject has in a row."""
        names = self.names[row]
        if subject not in names:
            return 0.0
        if self.parts is None:
            return 1 / len(names)
        return resize(self.parts[row, names.index(subject)].float()[None, None], grid)[0, 0]


class Trace(RunListener):
    """Filled while sampling, read afterwards; maps stay on the device until the end of the run, so that no step waits for them."""

    def __init__(self, layers: tuple[LayerSpec, ...]):
        self.layers = layers
        self.calls: list[RecordedCall] = []
        self.ran = False
        """Whether there was a run, even one without subjects."""
        self.note = ""
        """What users must know of the run."""
        self.read = layers_to_read(layers)
        self.open: list[SubjectParts | None] = []
        """Of each call, until the end of the run."""

    def begin_run(self) -> None:
        self.calls, self.open, self.ran = [], [], True

    def begin_call(self, call: CallInfo) -> Observe | None:
        rows = call.own_rows
        if not rows:
            return None
        own_subjects = [of_row for i, of_row in enumerate(call.subjects) if not call.followed(i)]
        names = [call.names[i] for i in rows] if call.names else ()
        recorded = RecordedCall(call.sigma, [call.views[i] for i in rows], names)
        parts = SubjectParts(call) if any(len(of_row) > 1 for of_row in own_subjects) else None
        self.calls.append(recorded)
        self.open.append(parts)

        def observe(spec: LayerSpec, routing: Routing) -> None:
            personal = routing.personal.detach()
            personal = personal if len(rows) == len(personal) else torch.stack([personal[i] for i in rows])
            recorded.maps[spec.name] = personal.half().unflatten(1, routing.grid)
            if parts is not None and spec.name in self.read:
                parts.observe(spec, routing)

        return observe

    def end_run(self) -> None:
        """Bring all maps to the CPU."""
        for call, parts in zip(self.calls, self.open, strict=True):
            call.sigma = call.sigma.cpu()
            call.maps = {name: m.cpu() for name, m in call.maps.items()}
            call.parts = None if parts is None else parts.fix()
        self.open = []

    def steps(self) -> list[list[RecordedCall]]:
        """Calls grouped by noise level, highest first."""
        groups: dict[float, list[RecordedCall]] = {}
        for call in self.calls:
            if call.maps:
                groups.setdefault(float(call.sigma), []).append(call)
        return [groups[sigma] for sigma in sorted(groups, reverse=True)]

    def largest_share(self) -> float:
        """The largest R_1 of the run at any pixel; 0 where no layer recorded one."""
        return max((float(m.max()) for call in self.calls for m in call.maps.values()), default=0.0)

    def subjects(self) -> list[str]:
        """The names of all subjects of the run, in the order of its prompts."""
        return list(dict.fromkeys(name for call in self.calls for of_row in call.names for name in of_row))


def average_map(
    calls: list[RecordedCall], layers: list[str], image: int, grid: tuple[int, int], subject: str | None = None
) -> Tensor:
    """Mean R_1 over calls, layers and prompts for one picture of the batch, on `grid`: -> (h,w) in [0,1].

    Maps of a part of the picture (a tile, an area prompt) count at their pixels only; a pixel without any is the prior's.

    Args: subject: the part of R_1 that this subject has; None: R_1, the sum over all subjects.
    Raises: ValueError when no call has that picture.
    """

    def share(call: RecordedCall, row: int, values: Tensor) -> Tensor:
        values = values.float()
        return values if subject is None else values * call.part(row, subject, (values.shape[-2], values.shape[-1]))

    maps = [
        placed(share(call, row, values), view, grid)
        for call in calls
        for name, of_rows in call.maps.items()
        for row, (view, values) in enumerate(zip(call.views, of_rows, strict=True))
        if name in layers and view is not None and view.picture == image
    ]
    if not maps:
        raise ValueError(missing_picture(calls, image))
    stacked = torch.stack(maps)
    return stacked.nanmean(dim=0).nan_to_num() if stacked.isnan().any() else stacked.mean(dim=0)


def placed(values: Tensor, view: View, grid: tuple[int, int]) -> Tensor:
    """A map (h,w) of a part of a picture on a grid of the picture, NaN outside the part."""
    rows, columns = view.part(grid)
    part = resize(values[None, None], (rows.stop - rows.start, columns.stop - columns.start))[0, 0]
    if view.whole:
        return part
    whole = part.new_full(grid, torch.nan)
    whole[rows, columns] = part
    return whole


def missing_picture(calls: list[RecordedCall], image: int) -> str:
    """Why a picture has no map, for users."""
    if any(None in call.views for call in calls):
        return (
            "The trace does not show where its shares are: another node shifted or rearranged the pixels of the latents in this run. "
            "Leave that node out to see the router's map."
        )
    recorded = ", ".join(
        map(str, sorted({view.picture + 1 for call in calls for view in call.views if view is not None}))
    )
    return f"The trace has no shares for picture {image + 1} of the batch, only for {recorded or 'none'}. Use the pictures of the traced run."
