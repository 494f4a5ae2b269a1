"""Seconds of a step against the stock model's: runs alternate block by block, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Name = TypeVar("Name", bound=Hashable)


def seconds(run: Callable[[], object]) -> float:
    """Of one run, until the device has finished."""
    started = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - started


def finish() -> None:
    """Wait for a CUDA device, which runs asynchronously."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Turns(Generic[Name]):
    """Lets one of several threads run at a time, and adds up the seconds of each one's turns.

    Args: names: of the threads, in the order of their turns.
    """

    def __init__(self, names: Iterable[Name]) -> None:
        self.waiting = deque(names)
        self.spent = dict.fromkeys(self.waiting, 0.0)
        self._gates = {name: threading.Semaphore(0) for name in self.waiting}
        self._began = 0.0

    def start(self) -> None:
        """Give the first thread its turn."""
        self._next()

    def run(self, name: Name, work: Callable[[], object]) -> None:
        """One thread's work, from its first turn to its last."""
        self._begin(name)
        try:
            work()
            finish()
        finally:
            self._end(name)
            self.waiting.popleft()
            self._next()

    def hand_over(self, *_: Any) -> None:
        """End the running thread's turn and wait for its next one; as a forward hook."""
        name = self.waiting[0]
        self._end(name)
        self.waiting.rotate(-1)
        self._next()
        self._begin(name)

    def _begin(self, name: Name) -> None:
        self._gates[name].acquire()
        self._began = time.perf_counter()

    def _end(self, name: Name) -> None:
        self.spent[name] += time.perf_counter() - self._began

    def _next(self) -> None:
        if self.waiting:
            self._gates[self.waiting[0]].release()


def seconds_each(
    runs: Mapping[Name, Callable[[], object]], blocks: Iterable[nn.Module], first: int = 0
) -> dict[Name, float]:
    """Seconds of every run, until the device has finished, counting its own turns only.

    Each run has a thread, and hands over at the end of every block. The speed of a shared machine changes from one second
    to the next; this way it changes for all runs alike.

    Args:
        blocks: modules on the path of all runs; without any, the runs are consecutive.
        first: index of the run that begins.
    """
    order = deque(runs)
    order.rotate(-first)
    turns = Turns(order)
    with ExitStack() as hooks, ThreadPoolExecutor(len(runs)) as threads:
        for block in blocks:
            hooks.callback(block.register_forward_hook(turns.hand_over).remove)
        done = [threads.submit(turns.run, name, run) for name, run in runs.items()]
        turns.start()
        for each in done:
            each.result()
    return {name: turns.spent[name] for name in runs}


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """Median and distance of the quartiles, of two values or more."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, upper - lower
