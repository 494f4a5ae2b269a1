"""A training session: an adapter trained on a model of the host that is loaded and frozen meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import comfy.model_management
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....moa_attention.training.base import Batch
from ....moa_attention.training.config import TrainConfig
from ....moa_attention.training.loop import ALONE, Log, Trained, train
from ....moa_attention.training.lots import Lot
from ....moa_attention.training.saved.settings import RunSettings
from ....moa_attention.training.workers import Workers
from ..model.patch import host_patcher
from .base import HostBase, checkpointed


@dataclass(frozen=True)
class TrainingSession(Generic[Trained]):
    """One run of the training loop.

    Its file `state` makes it resumable: a session with the same state continues the run of the one before.
    """

    model: Any
    """ModelPatcher of the base model."""
    adapter: Trained
    """Trained in place, in float32."""
    config: TrainConfig
    state: Path
    log: Log
    keep_going: Callable[[], bool] = lambda: True
    """Called before every step; False saves the state and ends the session."""
    workers: Workers = ALONE
    settings: RunSettings | None = None
    """Kept with the state and compared when it is resumed; by default those of `config`."""
    prior_bias: float = 0.0
    """As in `apply_adapter`; a very negative one trains the personalised branch alone."""

    def run(self, examples: Callable[[Lot], Batch]) -> Trained:
        """Train until `config.steps`: -> the averaged adapter.

        Raises: RunMismatch and TrainingDiverged as `train`, and whatever `log` raises.
        """
        with training_mode(self.model, self.config):
            adapter = host_patcher(self.adapter.to(self.model.load_device))
            base = HostBase(self.model, adapter, self.prior_bias)
            return train(
                self.adapter, base, examples, self.config, self.state, self.log, self.keep_going, self.workers,
                self.settings,
            )  # fmt: skip


@contextmanager
def training_mode(model: Any, config: TrainConfig) -> Iterator[None]:
    """Inside, the model is in memory and frozen, and gradients flow through it."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True  # the host leaves out shortcuts without a gradient
    # The fused attention's backward pass is slow on CPUs.
    kernel = sdpa_kernel(SDPBackend.MATH) if model.load_device.type == "cpu" else nullcontext()
    try:
        with torch.inference_mode(False), torch.enable_grad(), kernel:
            comfy.model_management.load_models_gpu([model], force_full_load=True)
            freeze(model.model)
            with checkpointed(model.model) if config.checkpointing else nullcontext():
                yield
    finally:
        comfy.model_management.in_training = before


def freeze(module: nn.Module) -> None:
    """Switch off the gradients of these weights. Inference tensors, which nodes create, become ordinary tensors."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.is_inference():
                part.register_parameter(name, nn.Parameter(weight.clone(), requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_inference():
                setattr(part, name, buffer.clone())
    module.requires_grad_(False)
