"""The learning rate of a step, by the schedules of transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from ..config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0: a linear warm-up, then the schedule."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return config.learning_rate * warm * multiplier(config)(max(step, config.warmup))


@lru_cache
def multiplier(config: TrainConfig) -> Callable[[int], float]:
    """The schedule after the warm-up: a step -> the factor of the learning rate."""
    if config.schedule == "constant":
        return lambda _: 1.0
    from transformers.optimization import get_scheduler  # takes a second

    name, options = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": 0.05}),
        "linear": ("linear", {}),
        "polynomial": ("polynomial", {"power": config.power, "lr_end": 0.0}),
        "restarts": ("cosine_with_restarts", {"num_cycles": config.cycles}),
    }[config.schedule]
    one = torch.optim.SGD([torch.zeros(())], lr=1.0)  # of its rate, 1, the schedule gives the factor
    scheduler: Any = get_scheduler(name, one, config.warmup, config.steps, options)
    return scheduler.lr_lambdas[0]
