"""What every training run here does besides training: a time budget, resumable checkpoints, a log, fresh weights."""

import json
import math
import os
import time
from pathlib import Path

import comfy.model_management
import torch
from safetensors.torch import save_file
from torch import nn

DEVICE = comfy.model_management.get_torch_device()
"""Where the host computes; all training here does too."""


class Session:
    """Counts steps and minutes across restarts, writes `<name>.jsonl` and `<name>.pt` in `folder`.

    `parts` are objects with `state_dict` and `load_state_dict`; all of them and torch's random state are saved.
    """

    def __init__(self, folder: Path, name: str, minutes: float, **parts: object) -> None:
        self.path, self.log_path = folder / f"{name}.pt", folder / f"{name}.jsonl"
        self.budget, self.parts = minutes * 60, parts
        self.step, self.spent = 0, 0.0
        if self.path.is_file():
            self._resume()
        self._started = time.monotonic() - self.spent
        self._saved = time.monotonic()

    def _resume(self) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["rng"])
        self.step, self.spent = state["step"], state["spent"]
        print(f"resumed {self.path.name} at step {self.step}, {self.spent / 60:.1f} minutes", flush=True)

    @property
    def progress(self) -> float:
        """The share of the time budget that is spent; the run is over at 1."""
        self.spent = time.monotonic() - self._started
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
        """True once every so many seconds: time to save."""
        if time.monotonic() - self._saved < seconds:
            return False
        self._saved = time.monotonic()
        return True

    def save(self) -> None:
        """Write the checkpoint so that a crash leaves the old one or the new one, whole."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        state = {"step": self.step, "spent": self.spent, "rng": torch.get_rng_state(), "parts": parts}
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)


def initialise(model: nn.Module) -> None:
    """Draw a host model's weights as torch would: the host leaves them unset, because it only ever loads files."""
    for module in model.modules():
        for kind in (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)


def export(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write fp16 safetensors, atomically. Integers stay what they are."""
    half = {k: (v.half() if v.is_floating_point() else v).detach().contiguous().clone() for k, v in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(half, part, metadata={"format": "pt", **metadata})
    os.replace(part, path)
