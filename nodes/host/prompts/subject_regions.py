"""The regions of subjects on their way from the prompt to the call: they are cut by whoever cuts the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....moa_attention.method.attention import resize
from ....moa_attention.run.listener import CallInfo
from ...sockets import Subject

REGION = 64
"""Side of the square on which regions are kept."""
CARRIER = "reference_latents"
"""The host's entry of a conditioning for pictures in the latents' size that belong to the prompt, a list of (1,C,h,w). Upscalers that
sample tile by tile cut them with the picture, and no U-Net reads them. The regions travel there, a channel for each subject and frame."""
REGIONS = "moa_regions"
"""Name in a conditioning: the index of its regions in that list."""


def frames_of_region(region: Tensor | None) -> int:
    """The number P of frames with a region of their own: 1 of a region (h,w), or of none."""
    return len(region) if region is not None and region.ndim == 3 else 1


def barred(region: Tensor | None) -> Tensor:
    """Where a subject must have no share: a region of P frames -> (P,REGION,REGION)."""
    if region is None:
        return torch.zeros(1, REGION, REGION)
    frames = region.float().reshape(1, -1, *region.shape[-2:])
    return 1 - resize(frames, (REGION, REGION))[0].clamp(0, 1)


def region_entries(extra: dict[str, Any], subjects: Sequence[Subject]) -> dict[str, Any]:
    """The entries of a conditioning for the regions of its subjects; none where no subject has one."""
    if all(subject.settings.region is None for subject in subjects):
        return {}
    carried = list(extra.get(CARRIER, ()))
    return {
        CARRIER: [*carried, torch.cat([barred(subject.settings.region) for subject in subjects])[None]],
        REGIONS: len(carried),
    }


def carried_regions(cond: dict[str, Any], subjects: Sequence[Subject]) -> dict[int, Tensor]:
    """Where each subject of a prompt must have no share, (P,REGION,REGION) by the subject's id, in the picture that is sampled.

    Args: subjects: those for which the prompt was encoded. They are missing where another node replaced the list.
    """
    carried = cond.get(CARRIER) or []
    index = cond.get(REGIONS, len(carried))
    counts = [frames_of_region(subject.settings.region) for subject in subjects]
    if index >= len(carried) or carried[index].shape[:2] != (1, sum(counts)):
        return {}
    regions = carried[index][0].float()
    if regions.shape[-2:] != (REGION, REGION):
        regions = resize(regions[None], (REGION, REGION))[0].clamp(0, 1)
    return {id(subject): region for subject, region in zip(subjects, regions.split(counts), strict=True)}


def allowed_regions(
    barred: Tensor | None, pixels: Tensor | None, run: Tensor | None, call: CallInfo, size: tuple[int, int]
) -> Tensor | None:
    """Where each subject may have a share, (R,S,h,w) in [0,1] on the call's device; None: everywhere.

    Args:
        barred: (R,S,REGION²) of the rows; pixels (R,1,h,w) and run (R,3), as in `views`.
        size: (h, w) of the call's latents. Numbers of another size do not describe them, and the regions are stretched to them.
    """
    if barred is None or not barred.any():
        return None
    device = call.slots.device
    allowed = (1 - barred.to(device, non_blocking=True)).unflatten(-1, (REGION, REGION))
    if call.whole or pixels is None or run is None or tuple(pixels.shape[-2:]) != size:
        return allowed
    full = (int(run[0, 1]), int(run[0, 2]))
    shown = (pixels.long() % (full[0] * full[1])).flatten(2).expand(-1, allowed.shape[1], -1)
    cut = resize(allowed, full).flatten(2).gather(2, shown.to(device, non_blocking=True))
    return cut.unflatten(-1, size)
