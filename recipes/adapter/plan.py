"""The memory and time of a run, before anything is loaded: `python dev.py plan config.toml [--card "RTX 3060"] [--gib 8] [--gpus 4]`.

Only the checkpoint's header is read; one step is taken with tensors that have no contents, and its allocations are added.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from tabulate import tabulate

from ...moa_attention.training.lots import check_division
from .cards import CARDS, CPU, DEFAULT
from .commands import read_request
from .course import course, fitting, states_on_disk
from .cpu_memory import beside_the_base, vae_peak
from .meta_model import estimate, planned_batch
from .settings import MINI, Settings

REACHED = 0.3
"""The share of that speed which training a U-Net reaches: a guess, not a measurement."""
OVERHEAD = 1.0
"""GiB for the driver's context and for fragmentation: a guess, not a measurement."""
COLUMNS = ("", "base", "adapter", "working", "other", "total, GiB", "fits", "hours")


def variants(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """The run as it stands, then with one more memory-saving setting each time."""
    yield "as it is", settings
    if (settings.train.micro_batch or settings.train.batch_size) > 1:
        settings = replace(settings, train=replace(settings.train, micro_batch=1))
        yield "train.micro_batch = 1", settings
    if not settings.train.checkpointing:
        settings = replace(settings, train=replace(settings.train, checkpointing=True))
        yield "and train.checkpointing = true", settings
    if not settings.adapter.rank and not settings.adapter.start:
        settings = replace(settings, adapter=replace(settings.adapter, rank=64))
        yield "and adapter.rank = 64 (learns less)", settings
    if settings.train.ema_decay:
        settings = replace(settings, train=replace(settings.train, ema_decay=0.0))
        yield "and train.ema_decay = 0", settings
    if settings.models.weights != "fp8" and settings.models.checkpoint != MINI:
        yield 'and models.weights = "fp8"', replace(settings, models=replace(settings.models, weights="fp8"))


@dataclass(frozen=True)
class Device:
    """What a run is planned for."""

    card: str
    gib: float
    """Memory of each card."""
    speed: float | None
    """TFLOP/s of each card; None where only its memory is known."""
    count: int

    @classmethod
    def of(cls, options: argparse.Namespace) -> Device:
        """By the options of the command."""
        if options.card == CPU:
            return cls(CPU, math.inf, None, options.gpus)
        gib, speed = CARDS[options.card or DEFAULT]
        if options.gib is not None:
            return cls(options.card or "a card", options.gib, speed if options.card else None, options.gpus)
        return cls(options.card or DEFAULT, gib, speed, options.gpus)

    def __str__(self) -> str:
        if self.card == CPU:
            return CPU
        speed = "" if self.speed is None else f", {self.speed} TFLOP/s by its data sheet"
        return f"{self.count} × " * (self.count > 1) + f"{self.card}: {self.gib:g} GiB{speed}"


class PlannedRun(NamedTuple):
    """One line of the table."""

    cells: list[str]
    """GiB by purpose, whether they fit, hours of all steps."""
    total: float
    """GiB"""
    state: int
    """Bytes of a resumable state."""


def plan_run(name: str, settings: Settings, device: Device) -> PlannedRun:
    """The memory and the hours of a run with these settings.

    Raises: ValueError when the batch cannot be divided among the cards.
    """
    share, _ = check_division(settings.train, device.count)
    steps, on_cpu = settings.train.steps, device.card == CPU
    settings = replace(settings, train=replace(settings.train, batch_size=share))
    found = estimate(settings, fused=not on_cpu)
    working, other = found.working, OVERHEAD * 2**30
    if on_cpu:  # beside a step, the VAE and the copy that is made of a state to write it
        working, other = max(working, vae_peak(settings), found.adapter), beside_the_base(settings.models)
    if device.count > 1:
        working += 4 * found.trained  # the copy of the gradients in DistributedDataParallel
    parts = [part / 2**30 for part in (found.base, found.adapter, working, other)]
    total = sum(parts)
    hours = found.flops * steps / (device.speed * 1e12 * REACHED) / 3600 if device.speed else None
    fits = "" if on_cpu else "yes" if total <= device.gib else "no"
    cells = [name, *(f"{part:.2f}" for part in (*parts, total)), fits, "" if hours is None else f"{hours:.1f}"]
    return PlannedRun(cells, total, found.adapter)


def assumptions(settings: Settings, device: Device) -> Iterator[str]:
    """The assumptions behind the table."""
    if settings.train.only_routers:
        yield "The table counts a whole adapter. With train.only_routers, training needs less memory."
    if device.card == CPU:
        yield (
            "On a CPU, the table counts the whole process, with the VAE, the text encoder and the CLIP vision model, over caching "
            "and training."
        )
    else:
        yield (
            f"The column 'other' is {OVERHEAD:g} GiB for the driver and for fragmentation. The hours assume {REACHED:.0%} of the "
            "data sheet's speed.\nBoth are guesses: on a card nothing was measured."
        )


def main(argv: list[str]) -> None:
    """Print the table."""
    request = read_request("plan", argv)
    settings, device = request.settings, Device.of(request.options)
    try:
        rows = [plan_run(name, variant, device) for name, variant in variants(settings)]
    except ValueError as error:
        sys.exit(f"plan: {error}")
    whole = [] if device.card == CPU else [fitting([(row.cells[0], row.total) for row in rows])]
    whole += course(settings, planned_batch(settings), device.count)
    whole.append(states_on_disk(settings.train, rows[0].state))
    table = tabulate([row.cells for row in rows], COLUMNS, tablefmt="pipe", disable_numparse=True)
    print("\n\n".join([str(device), table, *assumptions(settings, device), *whole]))
