"""For how many pixels of each layer the personalised branch is computed (ours): a given share, or one found while sampling."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .config import LayerSpec
from .layer import Observe, Routing

THRESHOLD = 0.05
"""Of the largest R_1 of a layer, under which a pixel is left to the prior: what is left out there is at most this part of
what the loudest pixel gets."""
NOTHING = 2**-8
"""R_1 that is none: half a step of an 8-bit picture if the branches differed by all of its range."""
PARTS = 16
"""A share that was found is rounded up to so many parts of a layer, with one in reserve: few shapes, and no surprises."""


@dataclass(frozen=True)
class Budget:
    """Shares of a layer's pixels, 0..1."""

    share: float = 1.0
    by_layer: Mapping[str, float] = field(default_factory=dict)
    """Where it is another."""

    def pixels(self, name: str, grid: tuple[int, int]) -> int | None:
        """How many pixels of an (h, w) grid; None for all."""
        share = self.by_layer.get(name, self.share)
        return None if share >= 1 else math.ceil(share * grid[0] * grid[1])

    def begin(self) -> None:
        """A new run."""

    def open(self, who: Hashable) -> tuple[Budget, Observe | None]:
        """The budget of the next call, and who wants to see its routing.

        Args: who: the same for calls of the same prompts and size.
        """
        return self, None


ALL = Budget()
"""Dense routing, the exact reference."""


class AutomaticBudget:
    """Looks how many pixels each layer's router gives to subjects, and computes so many, for each kind of call by itself.

    It looks in calls 1, 2, 4, 8 … of a run. Of a layer in which nobody speaks only the router is computed until the next look.
    Reading what was seen waits for the device, once a look: five times in thirty steps, and never within one.
    """

    def __init__(self, threshold: float = THRESHOLD):
        self.threshold = threshold
        self.looks: dict[Hashable, Looks] = {}

    def begin(self) -> None:
        self.looks = {}

    def open(self, who: Hashable) -> tuple[Budget, Observe | None]:
        return self.looks.setdefault(who, Looks(self.threshold)).open()

    def mean(self) -> float:
        """The share that was last found, over layers and kinds of calls; 1 where there was nothing to find yet."""
        shares = [share for look in self.looks.values() for share in look.found.by_layer.values()]
        return sum(shares) / len(shares) if shares else 1.0


@dataclass
class Looks:
    """At one kind of call."""

    threshold: float
    calls: int = 0
    seen: dict[str, Tensor] = field(default_factory=dict)
    """The largest routed share of any row and the largest R_1, (2,) by layer name, on the device."""
    found: Budget = ALL

    def open(self) -> tuple[Budget, Observe | None]:
        if self.seen:
            seen = dict(zip(self.seen, torch.stack(list(self.seen.values())).tolist(), strict=True))
            # Routers that look on say nothing at all in the first call; that is no reason to leave anybody out.
            if any(loudest for _, loudest in seen.values()):
                self.found = Budget(by_layer={name: enough(share) for name, (share, _) in seen.items()})
            self.seen = {}
        self.calls += 1
        return self.found, None if self.calls & (self.calls - 1) else self.look

    def look(self, spec: LayerSpec, routing: Routing) -> None:
        loudest = routing.personal.amax(dim=1, keepdim=True)
        routed = (routing.personal > (self.threshold * loudest).clamp(min=NOTHING)).float().mean(dim=1)
        self.seen[spec.name] = torch.stack((routed.amax(), loudest.amax()))


def enough(share: float) -> float:
    """A share that was seen, 0..1, in whole parts with a reserve."""
    return min(1.0, (math.ceil(share * PARTS) + 1) / PARTS) if share > 0 else 0.0
