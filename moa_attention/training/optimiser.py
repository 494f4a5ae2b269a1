"""The optimiser of a run and its learning rate."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .config import TrainConfig


def make_optimiser(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Raises: ValueError when the package of the chosen one is missing."""
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimiser == "adafactor":
        return torch.optim.Adafactor(parameters, **options)
    if config.optimiser == "adamw":
        parameters = list(parameters)
        return torch.optim.AdamW(parameters, fused=parameters[0].is_cuda or None, **options)
    try:
        bitsandbytes = importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ValueError(
            "optimiser 'adamw-8bit' needs the package bitsandbytes, which is not installed here: "
            "pip install bitsandbytes, or choose 'adamw' or 'adafactor'."
        ) from error
    return bitsandbytes.optim.AdamW8bit(parameters, **options)


def learning_rate(step: int, config: TrainConfig) -> float:
    """The schedule: a linear warm-up, then constant or half a cosine down to a twentieth."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "constant":
        return config.learning_rate * warm
    progress = max(0, step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
