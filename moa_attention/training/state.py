"""A resumable state of training: weights, averaged weights, optimiser moments and the step, as one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..files import write_tensors


def save_state(
    path: Path, step: int, model: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer
) -> None:
    """Write atomically: a run killed while saving, or a full disk, leaves the state before.

    Raises: OSError saying how much room is missing.
    """
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    plain: dict[str, Any] = {}
    for index, values in optimiser.state_dict()["state"].items():
        for key, value in values.items():
            (tensors if isinstance(value, Tensor) else plain)[f"optimiser.{index}.{key}"] = value
    write_tensors(tensors, path, {"step": str(step), "plain": json.dumps(plain)})


def load_state(path: Path, model: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer) -> int:
    """Restore what `save_state` wrote: -> the step to go on from; 0 when there is no file.

    Raises: ValueError when it is the state of another kind of adapter.
    """
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)

    def under(prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    try:
        model.load_state_dict(under("model."))
    except RuntimeError as error:
        raise ValueError(
            f"'{path}' is the state of another kind of adapter (other base model, rank or router) and cannot be gone on "
            f"from. Choose another output, or delete it to begin anew. {error}"
        ) from error
    if average is not None:
        average.load_state_dict(under("average."))
    moments: dict[int, dict[str, Any]] = {}
    for name, value in {**under("optimiser."), **json.loads(metadata["plain"])}.items():
        index, key = name.removeprefix("optimiser.").split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return int(metadata["step"])
