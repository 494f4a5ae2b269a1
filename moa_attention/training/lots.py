"""The examples of a step that a process computes, and the random generator of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Generator

from .config import TrainConfig
from .workers import Workers


@dataclass(frozen=True)
class Lot:
    """A micro-batch: some examples of one step, computed together."""

    step: int
    places: range
    """Which of the step's `batch_size` examples."""
    generators: list[Generator]
    """One for each example, on the CPU, decided by (seed, step, place): the same in every process."""


def generator_for(*what: object) -> Generator:
    """A CPU generator decided by the names and numbers given; torch seeds from 32 of its bits."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=4).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big"))


def lots(step: int, config: TrainConfig, workers: Workers) -> Iterator[Lot]:
    """This process's share of a step, in micro-batches.

    Raises: ValueError as `check_division`.
    """
    share, micro = check_division(config, workers.count)
    for start in range(workers.rank * share, (workers.rank + 1) * share, micro):
        places = range(start, start + micro)
        yield Lot(step, places, [generator_for(config.seed, step, place) for place in places])


def check_division(config: TrainConfig, processes: int) -> tuple[int, int]:
    """The examples of a step in each process, and those of a micro-batch.

    Raises: ValueError when the batch cannot be divided so.
    """
    share, rest = divmod(config.batch_size, processes)
    micro = config.micro_batch or share
    if rest or not share or share % micro:
        raise ValueError(
            f"batch_size {config.batch_size} cannot be divided among {processes} processes in micro-batches of "
            f"{micro}. Choose batch_size = processes × micro_batch × a whole number."
        )
    return share, micro
