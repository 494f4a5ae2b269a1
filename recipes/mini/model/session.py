"""Shared by the training runs of Mini: a time budget, resumable checkpoints, a log, fresh weights."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import comfy.model_management
import torch
from safetensors.torch import save_file
from torch import nn

from ....moa_attention.formats.atomic import replacing

DEVICE = comfy.model_management.get_torch_device()
"""The host's compute device, also that of all training here."""


class Stateful(Protocol):
    """A module, an optimiser or a schedule."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Session:
    """Counts steps and minutes across restarts, writes `<name>.jsonl` and `<name>.pt` in `folder`.

    All `parts` and torch's random state are saved. `minutes` is the time budget, endless for a training whose schedule counts
    something else.
    """

    def __init__(self, folder: Path, name: str, minutes: float = math.inf, **parts: Stateful) -> None:
        self.path, self.log_path = folder / f"{name}.pt", folder / f"{name}.jsonl"
        self.budget, self.parts = minutes * 60, parts
        self.step = 0
        self._started = self._saved = time.monotonic()
        if self.path.is_file():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["rng"])
        self.step = state["step"]
        self._started -= state["spent"]
        print(f"resumed {self.path.name} at step {self.step}, {self.spent / 60:.1f} minutes", flush=True)

    @property
    def spent(self) -> float:
        """Seconds of training, those before restarts included."""
        return time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Spent share of the time budget; the run ends at 1."""
        return min(self.spent / self.budget, 1.0)

    def rate(self, peak: float, warm_up: int = 200, floor: float = 0.01) -> float:
        """Learning rate: linear warm-up in steps, then a cosine over the time budget."""
        cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * self.progress))
        return peak * cosine * min(1.0, (self.step + 1) / warm_up)

    def log(self, **values: float) -> None:
        """Append one line to the log."""
        with self.log_path.open("a") as log:
            log.write(json.dumps({"step": self.step, "minutes": round(self.spent / 60, 2), **values}) + "\n")

    def due(self, seconds: float) -> bool:
        """True once every so many seconds, when it is time to save."""
        if time.monotonic() - self._saved < seconds:
            return False
        self._saved = time.monotonic()
        return True

    def save(self) -> None:
        """Write the checkpoint atomically: a crash leaves the old one or the new one complete."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        state = {"step": self.step, "spent": self.spent, "rng": torch.get_rng_state(), "parts": parts}
        with replacing(self.path) as part:
            torch.save(state, part)


RESETS: dict[type[nn.Module], Callable[[Any], None]] = {
    kind: kind.reset_parameters for kind in (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
}


def initialise(model: nn.Module) -> None:
    """Draw a host model's weights as torch does; the host leaves them unset, as it only loads files."""
    for module in model.modules():
        for kind, reset in RESETS.items():
            if isinstance(module, kind):
                reset(module)


def export(tensors: dict[str, torch.Tensor], path: Path, steps: int, **more: str) -> None:
    """Write fp16 safetensors atomically; integers keep their type.

    Args: steps: how many were taken; more: further entries of the file's metadata.
    """
    half = {k: (v.half() if v.is_floating_point() else v).detach().contiguous().clone() for k, v in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(
            half, part, metadata={"format": "moa-mini", "license": "GPL-3.0-or-later", "steps": str(steps), **more}
        )
