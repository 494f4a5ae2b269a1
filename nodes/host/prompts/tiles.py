"""Subjects in tiles: each tile acts on its part of the new picture, as a subject with a region."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from ...sockets import Subject


def in_tiles(subject: Subject) -> list[Subject]:
    """The tiles of a subject as subjects, each in its part of the subject's region; the subject itself if it has none."""
    if not subject.tiles:
        return [subject]
    region = subject.settings.region
    return [
        replace(
            subject,
            features=tile.features,
            tiles=(),
            settings=replace(subject.settings, region=tile.area if region is None else within(region, tile.area)),
        )
        for tile in subject.tiles
    ]


def within(region: Tensor, area: Tensor) -> Tensor:
    """The part of a region, (h,w) or (P,h,w), in a tile's area (H,W): -> (H,W) or (P,H,W)."""
    stretched = F.interpolate(
        region.float().reshape(1, -1, *region.shape[-2:]), size=area.shape, mode="bicubic", antialias=True
    )
    return stretched.reshape(*region.shape[:-2], *area.shape) * area


def check_no_tiles(subjects: Iterable[Subject]) -> None:
    """Raises: ValueError when a subject is in tiles."""
    tiled = [subject.word for subject in subjects if subject.tiles]
    if tiled:
        raise ValueError(
            f"The subject '{tiled[0]}' is in tiles, which only 'Add Subjects (MoA)' takes. Connect it there, or choose another 'fit' in "
            "'Encode Subject (MoA)'."
        )
