"""The training loop, top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..fitted import Expert, routers_of
from .base import Base, Batch
from .config import TrainConfig
from .lots import Lot, lots
from .objective import Objective
from .optimiser import learning_rate, make_optimiser
from .state import load_state, save_state
from .workers import Alone, Workers

Log = Callable[[int, dict[str, float], Any], None]
"""`(step, numbers, averaged adapter)`, called after every step, by the first process only."""
ALONE = Alone()
Trained = TypeVar("Trained", bound=Expert)


def train(
    adapter: Trained,
    base: Base,
    examples: Callable[[Lot], Batch],
    config: TrainConfig,
    state: Path,
    log: Log,
    keep_going: Callable[[], bool] = lambda: True,
    workers: Workers = ALONE,
) -> Trained:
    """Train `adapter` in place and return its averaged twin.

    Every example draws its randomness from a generator decided by (seed, step, place in the batch): a run that was killed
    and resumed from `state` repeats an unbroken one, and several processes repeat one.

    Args:
        examples: makes a batch of a lot.
        state: the resumable file, read first when it exists.
        keep_going: asked before every step; False saves and returns.
    """
    adapter.train().requires_grad_(not config.only_routers)
    for router in routers_of(adapter):
        router.requires_grad_(True)
    trained = [p for p in adapter.parameters() if p.requires_grad]
    objective = workers.share(Objective(adapter, base, config))
    average = AveragedModel(adapter, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay)) if config.ema_decay else None
    optimiser = make_optimiser(trained, config)
    averaged = cast("Trained", average.module if average is not None else adapter)
    step = load_state(state, adapter, average, optimiser)
    while step < config.steps and keep_going():
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        try:
            numbers = accumulate(objective, examples, step, config, workers)
        except BaseException:  # cancelled, perhaps: nothing of this step is learned yet, and all before it is kept
            if workers.rank == 0:
                save_state(state, step, adapter, average, optimiser)
            raise
        numbers["gradient_norm"] = clip_grad_norm_(trained, config.gradient_clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if average is not None:
            average.update_parameters(adapter)
        step += 1
        means = workers.mean(torch.stack(list(numbers.values()))).tolist()
        if workers.rank == 0:
            log(step, dict(zip(numbers, means, strict=True)), averaged)
            if step % config.save_every == 0:
                save_state(state, step, adapter, average, optimiser)
    if workers.rank == 0:
        save_state(state, step, adapter, average, optimiser)
    return averaged.eval().requires_grad_(False)


def accumulate(
    objective: torch.nn.Module, examples: Callable[[Lot], Batch], step: int, config: TrainConfig, workers: Workers
) -> dict[str, Tensor]:
    """Gradients of this process's share of a step, and its losses: () each."""
    shares = list(lots(step, config, workers))
    totals: dict[str, Tensor] = {}
    for lot in shares:
        with nullcontext() if lot is shares[-1] else workers.silently(objective):
            loss, parts = objective(examples(lot), lot.generators)
            (loss / len(shares)).backward()
        for name, value in {"loss": loss.detach(), **parts}.items():
            totals[name] = totals.get(name, 0) + value / len(shares)
    return totals
