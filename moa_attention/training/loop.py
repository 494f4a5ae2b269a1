"""The training loop, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel

from ..adapters.base import Adapter
from ..formats.routers import routers_of
from .base import Base, Batch
from .config import TrainConfig
from .lots import Lot, lots
from .objective import Objective
from .optimisation.average import averaging
from .optimisation.optimisers import make_optimiser, training_weights
from .optimisation.schedule import learning_rate
from .saved.settings import RunSettings
from .saved.state import TrainingDiverged, TrainingState
from .workers import Alone, Workers

Log = Callable[[int, dict[str, float], Any], None]
"""`(step, numbers, averaged adapter)`, called after every step, by the first process only.

A skipped step has `"skipped": 1.0` among its numbers, some of which are NaN or infinite."""
ALONE = Alone()
MOST_SKIPPED = 5
"""Skipped steps in a row that end a run (ours)."""
NOT_FINITE = f"the loss or its gradient was not finite in {MOST_SKIPPED} steps in a row."
ADVICE = "A lower learning_rate usually helps."
Trained = TypeVar("Trained", bound=Adapter)


def train(
    adapter: Trained,
    base: Base,
    examples: Callable[[Lot], Batch],
    config: TrainConfig,
    state: Path,
    log: Log,
    keep_going: Callable[[], bool] = lambda: True,
    workers: Workers = ALONE,
    settings: RunSettings | None = None,
) -> Trained:
    """Train `adapter` in place and return its averaged copy.

    Every example draws its randomness from a generator decided by (seed, step, place in the batch): a run that was killed
    and resumed from `state` repeats an unbroken one, and several processes repeat one. A step whose loss or gradient is
    not finite is skipped: it changes no weight, and the periodic state is not written after it.

    Args:
        examples: makes the batch of a lot.
        state: the resumable file, read first when it exists.
        keep_going: called before every step; False in any process saves the state and returns.
        settings: what is kept with the state and compared when it is resumed; by default those of `config`.
    Raises: RunMismatch when the run of `state` had other settings of a kind that must not change; TrainingDiverged after
        `MOST_SKIPPED` skipped steps in a row, or when a weight to be saved is not finite.
    """
    trained = trained_parameters(adapter, config)
    objective = workers.share(Objective(adapter, base, config))
    average = AveragedModel(adapter, multi_avg_fn=averaging(config.ema_decay)) if config.ema_decay else None
    averaged = cast("Trained", average.module if average is not None else adapter)
    optimiser = make_optimiser(trained, config)
    stored = TrainingState(state, adapter, average, optimiser, settings or RunSettings.of(config), workers.rank == 0)
    step, skipped = stored.load(config.steps), 0
    while step < config.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        try:
            if not all_agree(keep_going(), workers):
                break
            with training_weights(optimiser):
                numbers = accumulate(objective, examples, step, config, workers)
            numbers["gradient_norm"] = clip_grad_norm_(trained, config.gradient_clip)
            means = dict(zip(numbers, workers.mean(torch.stack(list(numbers.values()))).tolist(), strict=True))
        except (
            BaseException
        ):  # cancelled, or another process ended: this step has changed nothing, and those before are kept
            if not skipped:
                stored.save(step)
            raise
        skipped = 0 if all(map(math.isfinite, means.values())) else skipped + 1
        if not skipped:
            with training_weights(optimiser):
                optimiser.step()
            if average is not None:
                average.update_parameters(adapter)
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if workers.rank == 0:
            log(step, means | ({"skipped": 1.0} if skipped else {}), averaged)
        if skipped == MOST_SKIPPED:
            raise TrainingDiverged(f"Training stopped at step {step}: {NOT_FINITE} {stored.kept()} {ADVICE}")
        forever = bool(config.keep_every) and step % config.keep_every == 0
        if (forever or step % config.save_every == 0) and not skipped:
            stored.save(step, forever)
    stored.save(step)
    return averaged.eval().requires_grad_(False)


def all_agree(going: bool, workers: Workers) -> bool:
    """Whether every process goes on: one that stopped alone would leave the others waiting for it."""
    return float(workers.mean(torch.tensor([float(going)]))) == 1


def trained_parameters(adapter: Adapter, config: TrainConfig) -> list[torch.nn.Parameter]:
    """Those that require a gradient: all of the adapter, or only its routers."""
    adapter.train().requires_grad_(not config.only_routers)
    for router in routers_of(adapter):
        router.requires_grad_(True)
    return [p for p in adapter.parameters() if p.requires_grad]


def accumulate(
    objective: torch.nn.Module, examples: Callable[[Lot], Batch], step: int, config: TrainConfig, workers: Workers
) -> dict[str, Tensor]:
    """Gradients of this process's share of a step, and its losses: () each."""
    shares = list(lots(step, config, workers))
    totals: dict[str, Tensor] = {}
    for lot in shares:
        with nullcontext() if lot is shares[-1] else workers.no_sync(objective):
            loss, parts = objective(examples(lot), lot.generators)
            (loss / len(shares)).backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            totals[name] = totals.get(name, 0) + value / len(shares)
    return totals
