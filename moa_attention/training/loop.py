"""The training loop, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..adapter import MoAAdapter
from .base import Base, Batch
from .config import TrainConfig
from .objective import objective
from .state import load_state, save_state

Log = Callable[[int, dict[str, float]], None]
"""`(step, numbers)`, called after every step."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """The schedule: a linear warm-up, then constant or half a cosine down to a twentieth."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "constant":
        return config.learning_rate * warm
    progress = max(0, step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train(
    adapter: MoAAdapter,
    base: Base,
    batches: Callable[[Generator], Batch],
    config: TrainConfig,
    state: Path,
    log: Log,
    keep_going: Callable[[], bool] = lambda: True,
) -> MoAAdapter:
    """Train `adapter` in place and return its averaged twin.

    Every step draws all its randomness from a generator seeded by (seed, step): a run that was killed and resumed from
    `state` repeats an unbroken one.

    Args:
        batches: makes a batch from a generator.
        state: the resumable file, read first when it exists.
        keep_going: asked before every step; False saves and returns.
    """
    adapter.train().requires_grad_(True)
    average = AveragedModel(adapter, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    step = load_state(state, adapter, average, optimiser)
    while step < config.steps and keep_going():
        generator = Generator().manual_seed(config.seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        loss, parts = objective(adapter, base, batches(generator), config, generator)
        loss.backward()
        norm = clip_grad_norm_(adapter.parameters(), config.gradient_clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update_parameters(adapter)
        step += 1
        log(step, {"loss": loss.item(), "gradient_norm": norm.item(), **{k: v.item() for k, v in parts.items()}})
        if step % config.save_every == 0:
            save_state(state, step, adapter, average, optimiser)
    save_state(state, step, adapter, average, optimiser)
    trained = average.module.eval().requires_grad_(False)
    assert isinstance(trained, MoAAdapter)
    return trained
