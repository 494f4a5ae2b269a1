"""What one sampling run knows of its schedule: noise levels, and whether subjects were active."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from .listener import CallInfo, RunListener


class Sampling(Hashable, Protocol):
    """A noise schedule, as hosts implement it."""

    def percent_to_sigma(self, percent: float, /) -> float:
        """The noise level at a part of the sampling, 0..1."""
        ...


class Schedule(RunListener):
    """Of the model that samples. A node behind Apply MoA may have replaced the schedule that the model had there."""

    def __init__(self) -> None:
        self.levels: dict[tuple[Sampling, float], float] = {}
        self.active: set[int] = set()
        """The numbers of the evaluations in which a subject was active."""
        self.evaluation = 0
        """The number of the sampler's evaluation, from 1; 0 before the first, and where the host does not report them."""

    def begin_run(self) -> None:
        self.levels, self.active, self.evaluation = {}, set(), 0

    def begin_evaluation(self) -> None:
        """The sampler evaluates the model: in one call, or in several for prompts, windows and tiles."""
        self.evaluation += 1

    def begin_call(self, call: CallInfo) -> None:
        self.active.add(call.evaluation)

    def end_run(self) -> None:
        self.levels = {}

    def noise_level(self, sampling: Sampling, percent: float) -> float:
        """The noise level at a part of the sampling, computed once a run: hosts wait for the device to compute it."""
        key = (sampling, percent)
        if key not in self.levels:
            self.levels[key] = float(sampling.percent_to_sigma(percent))
        return self.levels[key]
