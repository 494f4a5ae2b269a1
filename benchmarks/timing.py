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


def ratios(
    stock: Callable[[], object], runs: Mapping[Name, Callable[[], object]], rounds: int
) -> tuple[dict[Name, list[float]], list[float]]:
    """How much longer each run takes than the stock model would have taken at that moment, in every round; the stock's seconds.

    The stock model runs before every round and after the last; between two of its runs a machine that gets busier or hotter
    is taken to do so evenly.
    """
    found: dict[Name, list[float]] = {name: [] for name in runs}
    alone = [seconds(stock)]
    for _ in range(rounds):
        taken = {name: seconds(run) for name, run in runs.items()}
        alone.append(seconds(stock))
        before, after = alone[-2:]
        for place, (name, value) in enumerate(taken.items(), start=1):
            found[name].append(value / (before + (after - before) * place / (len(taken) + 1)))
    return found, alone


def middle(values: list[float]) -> tuple[float, float]:
    """Median, and the distance of the quartiles, of two values or more."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, upper - lower
