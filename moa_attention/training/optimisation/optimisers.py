"""The optimisers of a run, all of them by libraries."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from ..config import TrainConfig
from .pair import PairedOptimiser


class Library(NamedTuple):
    """Where an optimiser comes from."""

    module: str
    name: str
    package: str
    """As pip installs it."""
    moments: int
    """Bytes of its state per trained parameter."""


OPTIMISERS = {
    "adamw": Library("torch.optim", "AdamW", "torch", 8),
    "adamw-8bit": Library("bitsandbytes.optim", "AdamW8bit", "bitsandbytes", 2),
    "adafactor": Library("torch.optim", "Adafactor", "torch", 0),  # sums of rows and columns
    "lion": Library("lion_pytorch", "Lion", "lion-pytorch", 4),
    "lion-8bit": Library("bitsandbytes.optim", "Lion8bit", "bitsandbytes", 1),
    "prodigy": Library("prodigyopt", "Prodigy", "prodigyopt", 16),
    "schedule-free": Library("schedulefree", "AdamWScheduleFree", "schedulefree", 8),
    "muon": Library("torch.optim", "Muon", "torch>=2.9", 4),
}


def make_optimiser(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Raises: ValueError as `check_optimiser`."""
    check_optimiser(config)
    trained, library = list(parameters), OPTIMISERS[config.optimiser]
    kind = getattr(importlib.import_module(library.module), library.name)
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    fused = trained[0].is_cuda or None
    if config.optimiser == "adamw":
        return kind(trained, **options, fused=fused)
    if config.optimiser == "prodigy":
        return kind(trained, **options, safeguard_warmup=True, use_bias_correction=True)
    if (
        config.optimiser == "muon"
    ):  # orthogonalises the updates of matrices; the others have AdamW, with its learning rate
        matrices, others = ([p for p in trained if (p.ndim == 2) is wanted] for wanted in (True, False))
        muon = kind(matrices, **options, adjust_lr_fn="match_rms_adamw")
        return PairedOptimiser(muon, torch.optim.AdamW(others, **options, fused=fused)) if others else muon
    return kind(trained, **options)


def check_optimiser(config: TrainConfig) -> None:
    """Raises: ValueError when the package of the chosen optimiser is not installed."""
    library = OPTIMISERS[config.optimiser]
    present = hasattr(torch.optim, library.name) if library.module == "torch.optim" else installed(library.module)
    if not present:
        raise ValueError(
            f"The optimiser '{config.optimiser}' needs the package {library.package}, which is not installed. Run "
            f"`pip install '{library.package}'`, or choose 'adamw' or 'adafactor'."
        )


def installed(module: str) -> bool:
    """Whether the package of a module is installed; it is not imported."""
    return importlib.util.find_spec(module.split(".")[0]) is not None


@contextmanager
def training_weights(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the weights are those at which gradients are taken, which differ from the result's with Schedule-Free."""
    begin, end = getattr(optimiser, "train", None), getattr(optimiser, "eval", None)
    if begin is None or end is None:
        yield
        return
    begin()
    try:
        yield
    finally:
        end()
