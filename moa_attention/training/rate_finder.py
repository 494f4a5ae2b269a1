"""The learning-rate range test (arXiv 1506.01186): losses of a fresh adapter while the learning rate rises exponentially.

The loss of a step depends far more on its timesteps than on the learning rate. The same few steps are therefore repeated,
with the same pictures, timesteps and noise, and every loss is relative to that of the untrained adapter in the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch.nn.utils import clip_grad_norm_

from ..adapters.base import Adapter
from .base import Base, Batch
from .config import TrainConfig
from .loop import ALONE, accumulate, trained_parameters
from .lots import Lot
from .objective import Objective
from .optimisation.optimisers import make_optimiser, training_weights
from .workers import Workers

REPEATED = 8
"""Steps of the run that are repeated. Every mean is over one of each."""
STEPS = 160
LOWEST, HIGHEST = 1e-7, 1.0
DIVERGED = 2.0
"""Relative loss that ends the test."""
LEARNED = 0.995
"""Highest relative loss that counts as learning."""
SAFE = 10.0
"""The suggestion is the learning rate of the lowest loss divided by this, as usual."""


class RateLoss(NamedTuple):
    """A point of the curve."""

    rate: float
    loss: float
    """Mean of the last `REPEATED` steps, relative to the untrained adapter."""


def rising_losses(
    adapter: Adapter,
    base: Base,
    examples: Callable[[Lot], Batch],
    config: TrainConfig,
    workers: Workers = ALONE,
    steps: int = STEPS,
) -> list[RateLoss]:
    """Train `adapter` in place, until its loss is not finite or `DIVERGED`. Returns: the curve from step `REPEATED` on."""
    trained = trained_parameters(adapter, config)
    objective, optimiser = workers.share(Objective(adapter, base, config)), make_optimiser(trained, config)
    untrained: list[float] = []
    relative: list[float] = []
    curve: list[RateLoss] = []
    for step in range(-REPEATED, steps):
        rate = LOWEST * (HIGHEST / LOWEST) ** (max(step, 0) / max(1, steps - 1))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with training_weights(optimiser):
            numbers = accumulate(objective, examples, step % REPEATED, config, workers)
        loss = float(workers.mean(numbers["loss"]))
        if not math.isfinite(loss):
            break
        if step < 0:
            untrained.append(loss)
        else:
            relative.append(loss / untrained[step % REPEATED])
            clip_grad_norm_(trained, config.gradient_clip)
            with training_weights(optimiser):
                optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if len(relative) >= REPEATED:
            curve.append(RateLoss(rate, sum(relative[-REPEATED:]) / REPEATED))
            if curve[-1].loss > DIVERGED:
                break
    return curve


def suggested_rate(curve: Sequence[RateLoss]) -> float | None:
    """A tenth of the learning rate with the lowest loss; None where nothing was learned."""
    lowest = min(curve, key=lambda point: point.loss, default=None)
    return None if lowest is None or lowest.loss > LEARNED else lowest.rate / SAFE
