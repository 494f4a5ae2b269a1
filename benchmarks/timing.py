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


class Turns(threading.local):
    """What a thread knows of its own turn."""

    since: float = 0.0


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
    waiting, turns = deque(runs), Turns()
    waiting.rotate(-first)

    def hand_over(*_: Any) -> None:
        mine = waiting[0]
        spent[mine] += time.perf_counter() - turns.since
        waiting.rotate(-1)
        gates[waiting[0]].release()
        gates[mine].acquire()
        turns.since = time.perf_counter()

    def work(name: Name, run: Callable[[], object]) -> None:
        gates[name].acquire()
        turns.since = time.perf_counter()
        try:
            run()
            finish()
        finally:
            spent[name] += time.perf_counter() - turns.since
            waiting.popleft()
            if waiting:
                gates[waiting[0]].release()

    with ExitStack() as hooks, ThreadPoolExecutor(len(runs)) as threads:
        for block in blocks:
            hooks.callback(block.register_forward_hook(hand_over).remove)
        done = [threads.submit(work, *item) for item in runs.items()]
        gates[waiting[0]].release()
        for each in done:
            each.result()
    return spent


def middle(values: list[float]) -> tuple[float, float]:
    """Median, and the distance of the quartiles, of two values or more."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, upper - lower
