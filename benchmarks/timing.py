"""How long a step takes beside the stock model's: calls taken in turn, so that a busy machine is busy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Name = TypeVar("Name")


def seconds(run: Callable[[], object]) -> float:
    """Of one run, until the device has finished."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(runs: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, list[float]]:
    """Seconds of every run in every round."""
    taken: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run))
    return taken


def against(taken: list[float], stock: list[float]) -> tuple[float, float]:
    """Median of the rounds' ratios, and the distance of their quartiles. At least two rounds."""
    ratios = [ours / theirs for ours, theirs in zip(taken, stock, strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, upper - lower
