"""How long a step takes beside the stock model's: runs take turns, block by block, so that a busy machine is busy for all."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import nn

Name = TypeVar("Name")


def seconds(run: Callable[[], object]) -> float:
    """Of one run, until the device has finished."""
    started = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - started


def finish() -> None:
    """Wait for a card, which goes on when the host has said all."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_each(
    runs: Mapping[Name, Callable[[], object]], blocks: Iterable[nn.Module], first: int = 0
) -> dict[Name, float]:
    """Seconds of every run, until the device has finished, counting its own turns only.

    Each has a thread, and only one of them is ever at work: it hands over at the end of every block it comes through.
    A machine shared with others is faster and slower from one second to the next; all see the same of it.

    Args:
        blocks: modules that the runs come through; without any, run follows run.
        first: which run begins.
    """
    spent, gates = dict.fromkeys(runs, 0.0), {name: threading.Semaphore(0) for name in runs}
    waiting, began = deque(runs), 0.0
    waiting.rotate(-first)

    def begin(name: Name) -> None:
        nonlocal began
        gates[name].acquire()
        began = time.perf_counter()

    def end(name: Name) -> None:
        spent[name] += time.perf_counter() - began

    def call_next() -> None:
        if waiting:
            gates[waiting[0]].release()

    def hand_over(*_: Any) -> None:
        mine = waiting[0]
        end(mine)
        waiting.rotate(-1)
        call_next()
        begin(mine)

    def work(name: Name, run: Callable[[], object]) -> None:
        begin(name)
        try:
            run()
            finish()
        finally:
            end(name)
            waiting.popleft()
            call_next()

    with ExitStack() as hooks, ThreadPoolExecutor(len(runs)) as threads:
        for block in blocks:
            hooks.callback(block.register_forward_hook(hand_over).remove)
        done = [threads.submit(work, *item) for item in runs.items()]
        call_next()
        for each in done:
            each.result()
    return spent


def middle(values: list[float]) -> tuple[float, float]:
    """Median, and the distance of the quartiles, of two values or more."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, upper - lower
