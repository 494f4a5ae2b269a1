"""The connected regions of a mask (ours): runs of pixels, row by row, joined where they touch."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from .crop import Box

SPECK = 0.01
"""Share of the largest region's box below which a region counts as dirt of the brush."""


class Run(NamedTuple):
    """Neighbouring pixels of one row."""

    row: int
    start: int
    stop: int


def regions(mask: Tensor) -> list[Box]:
    """Boxes of the connected regions of a mask (H,W), above one half; corners connect, specks are left out."""
    runs = find_runs(mask)
    groups: dict[int, list[Run]] = {}
    for run, group in zip(runs, label(runs), strict=True):
        groups.setdefault(group, []).append(run)
    boxes = [around(group) for group in groups.values()]
    largest = max((box.area for box in boxes), default=0.0)
    return [box for box in boxes if box.area >= SPECK * largest]


def find_runs(mask: Tensor) -> list[Run]:
    """In reading order."""
    edges = F.pad((mask > 0.5).int(), (1, 1)).diff(dim=1)
    starts, stops = (edges == 1).nonzero().tolist(), (edges == -1).nonzero().tolist()
    return [Run(row, start, stop) for (row, start), (_, stop) in zip(starts, stops, strict=True)]


def label(runs: list[Run]) -> list[int]:
    """A number for each run, the same for all that are connected (union-find)."""
    parents = list(range(len(runs)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    above = 0
    for number, run in enumerate(runs):
        while runs[above].row < run.row - 1 or (runs[above].row < run.row and runs[above].stop < run.start):
            above += 1
        neighbour = above
        while runs[neighbour].row < run.row and runs[neighbour].start <= run.stop:
            parents[root(neighbour)] = root(number)
            neighbour += 1
    return [root(number) for number in range(len(runs))]


def around(runs: list[Run]) -> Box:
    """The box of a region, whose runs are in reading order."""
    left, right = min(run.start for run in runs), max(run.stop for run in runs)
    return Box(left, runs[0].row, right - left, runs[-1].row + 1 - runs[0].row)
