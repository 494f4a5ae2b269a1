"""The number of pixels of each layer for which the personalised branch is computed (ours): a given share, or a measured one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..method.layer import Observe, Pixels, Routing
from ..method.spec import LayerSpec
from .listener import CallInfo, RunListener

THRESHOLD = 0.05
"""Of the largest R_1 of a layer, under which a pixel is left to the prior: the share left out there is at most this part of
the largest share in the layer."""
NOTHING = 2**-8
"""R_1 that counts as zero: half a step of an 8-bit picture if the branches differed by all of its range."""
PARTS = 16
"""A measured share is rounded up to so many parts of a layer, with one in reserve: few shapes, and a margin for change."""


@dataclass(frozen=True)
class Budget(RunListener):
    """Shares of a layer's pixels, 0..1."""

    share: float = 1.0
    by_row: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Those of each row where they are measured, by layer name."""

    def pixels(self, name: str, grid: tuple[int, int]) -> Pixels:
        """The number of pixels of an (h, w) grid."""
        size = grid[0] * grid[1]
        counts = tuple(math.ceil(share * size) for share in self.by_row.get(name, (self.share,)))
        if len(set(counts)) > 1:
            return counts
        return None if counts[0] >= size else counts[0]

    def for_call(self, call: CallInfo) -> Budget:
        """The budget of a call that has begun."""
        del call
        return self

    def measured_share(self) -> float | None:
        """The mean share that a run ended with, where it is measured."""
        return None


ALL = Budget()
"""Dense routing, the exact reference."""


class AutomaticBudget(RunListener):
    """Measures how many pixels each layer's router gives to subjects and computes that many, separately for every row: a picture is
    the same alone and in a batch.

    It measures in a row's calls 1, 2, 4, 8 … of a run. In a layer without any share only the router is computed until the next
    measurement. Reading a measurement waits for the device once: five times in thirty steps, and never within a step.
    """

    def __init__(self, threshold: float = THRESHOLD):
        self.threshold = threshold
        self.rows: dict[Hashable, RowShares] = {}

    def begin_run(self) -> None:
        self.rows = {}

    def begin_call(self, call: CallInfo) -> Observe | None:
        if not call.known:
            return None
        measurement = MeasuredCall(self.threshold)
        due = [self.rows.setdefault(row, RowShares()).begin_call(measurement, i) for i, row in enumerate(call.rows)]
        return measurement.observe if any(due) else None

    def for_call(self, call: CallInfo) -> Budget:
        """The budget of a call that has begun: all pixels where it is not known what the rows show."""
        if not call.known:
            return ALL
        found = [self.rows[row].found for row in call.rows]
        names = {name: None for each in found for name in each}
        return Budget(by_row={name: tuple(each.get(name, 1.0) for each in found) for name in names})

    def measured_share(self) -> float | None:
        """The share last measured, mean over layers and rows; None where nothing was measured."""
        shares = [share for each in self.rows.values() for share in each.found.values()]
        return sum(shares) / len(shares) if shares else None


@dataclass
class MeasuredCall:
    """Of one call; all its rows are read from the device together."""

    threshold: float
    shares: dict[str, Tensor] = field(default_factory=dict)
    """The routed share of every row and its largest R_1, (2,R) by layer name, on the device."""

    def observe(self, spec: LayerSpec, routing: Routing) -> None:
        largest = routing.personal.amax(dim=1, keepdim=True)
        routed = (routing.personal > (self.threshold * largest).clamp(min=NOTHING)).float().mean(dim=1)
        self.shares[spec.name] = torch.stack((routed, largest.squeeze(1)))

    @cached_property
    def values(self) -> dict[str, list[list[float]]]:
        """The same as numbers."""
        if not self.shares:
            return {}
        return dict(zip(self.shares, torch.stack(list(self.shares.values())).tolist(), strict=True))


@dataclass
class RowShares:
    """What was measured of a row."""

    calls: int = 0
    found: dict[str, float] = field(default_factory=dict)
    """Rounded shares by layer name."""
    pending: tuple[MeasuredCall, int] | None = None
    """The measurement that is not read yet, and the row's index in it."""

    def begin_call(self, measurement: MeasuredCall, row: int) -> bool:
        """Whether this call is measured."""
        if self.pending is not None:
            earlier, own = self.pending
            # A router that first collects attention gives no shares in the first call: that is no measurement.
            if any(largest[own] for _, largest in earlier.values.values()):
                self.found = {name: rounded(routed[own]) for name, (routed, _) in earlier.values.items()}
            self.pending = None
        self.calls += 1
        if self.calls & (self.calls - 1):
            return False
        self.pending = (measurement, row)
        return True


def rounded(share: float) -> float:
    """A measured share, 0..1, in whole parts with a reserve."""
    return min(1.0, (math.ceil(share * PARTS) + 1) / PARTS) if share > 0 else 0.0
