"""A resumable state of training: weights, averaged weights, optimiser moments and the step, as one safetensors file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ...formats.errors import printable
from ...formats.tensors import open_stored, write_tensors
from .files import at_step, keep, newest, previous
from .moments import OptimiserState
from .settings import RunMismatch, RunSettings, check_run, no_state, stored_run

AVERAGED = "average.module."
logger = logging.getLogger(__name__)


class TrainingDiverged(ValueError):
    """Losses, gradients or weights are NaN or infinite; the message names the step and the state that is kept."""


class TrainingState:
    """What a run changes, and the file that it resumes from.

    Args:
        settings: of this session; they are kept with the state.
        writes: False in all processes but the first.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        average: AveragedModel | None,
        optimiser: torch.optim.Optimizer,
        settings: RunSettings,
        writes: bool = True,
    ):
        self.path, self.writes, self.step = path, writes, 0
        self.model, self.average = model, average
        self.settings, self.moments = settings, OptimiserState(optimiser)
        self.changes: list[dict[str, Any]] = []

    def save(self, step: int, forever: bool = False) -> None:
        """Write atomically: a run killed while saving, or a full disk, leaves the previous state. The last two are kept.

        Args: forever: whether this state is also kept under the name of its step.
        Raises: TrainingDiverged when a tensor is not finite; OSError with the room that is missing.
        """
        if step == self.step and self.path.is_file():
            return
        tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        plain: dict[str, Any] = {}
        for name, value in self.moments.values().items():
            (tensors if isinstance(value, Tensor) else plain)[f"optimiser.{name}"] = value
        broken = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
        if broken is not None:
            raise TrainingDiverged(f"Training stopped at step {step}: {broken} contains NaN or infinity. {self.kept()}")
        if self.writes:
            if self.path.is_file():
                keep(self.path, previous(self.path))
            write_tensors(tensors, self.path, self._metadata(step, plain))
            if forever:
                keep(self.path, at_step(self.path, step))
        self.step = step

    def _metadata(self, step: int, plain: Mapping[str, Any]) -> dict[str, str]:
        parts = {"plain": plain, "settings": self.settings.values, "changes": self.changes}
        return {"step": str(step), **{name: json.dumps(part) for name, part in parts.items()}}

    def load(self, steps: int) -> int:
        """Restore what `save` wrote: -> the step to resume from; 0 when there is no file.

        Args: steps: of the whole run.
        Raises: RunMismatch as `check_run`, or when it is the state of another kind of adapter; StoredFileError when all
            states are damaged, or the newest is incomplete.
        """
        found = newest(self.path)
        if found is None:
            return 0
        if found != self.path:
            self._set_aside(found)
        file = open_stored(found)
        stored = stored_run(found, file.header or {})
        check_run(self.path, stored, self.settings, steps)
        if changed := self.settings.changes_since(stored.settings):
            self.changes = [*stored.changes, {"step": stored.step, **changed}]
        else:
            self.changes = stored.changes
        tensors = file.read(file.tensors.keys())
        check_same(self.path, under("model.", tensors), self.model.state_dict())
        try:
            self._restore(tensors, json.loads((file.header or {})["plain"]))
        except Exception as error:  # optimisers raise anything about a state that is not theirs
            raise no_state(found, repr(error)) from error
        self.step = stored.step
        return self.step

    def _restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Weights, averaged weights and optimiser."""
        weights, average = under("model.", tensors), under("average.", tensors)
        self.model.load_state_dict(weights)
        if self.average is not None:
            if average:
                self.average.load_state_dict(average)
            else:  # the averaging was switched on: its first update copies the weights
                self.average.module.load_state_dict(weights)
        self.moments.restore(under("optimiser.", {**tensors, **plain}))

    def _set_aside(self, found: Path) -> None:
        """The newest state is damaged: give it another name, so that it does not replace the one before."""
        logger.warning("'%s' is damaged or missing. The run resumes from the previous state, '%s'.", self.path, found)
        if self.writes and self.path.is_file():
            self.path.replace(self.path.with_name(f"{self.path.stem}.damaged{self.path.suffix}"))

    def kept(self) -> str:
        """A sentence on the last good state."""
        if not self.step:
            return "No state was saved."
        return f"The state of step {self.step} is kept in '{self.path}'."


def under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def mean_weights(states: Sequence[Path]) -> dict[str, Tensor]:
    """The mean over states of their averaged weights, or of the weights where a run does not average.

    Raises: RunMismatch when they are states of different kinds of adapters; StoredFileError when one is damaged.
    """
    mean: dict[str, Tensor] = {}
    for path in states:
        file = open_stored(path)
        averaged = any(name.startswith(AVERAGED) for name in file.tensors)
        prefix = AVERAGED if averaged else "model."
        stored = file.read([name for name in file.tensors if name.startswith(prefix)])
        weights = {name.removeprefix(prefix): tensor.float() / len(states) for name, tensor in stored.items()}
        if mean:
            check_same(path, weights, mean)
        mean = {name: mean[name] + tensor if mean else tensor for name, tensor in weights.items()}
    return mean


def check_same(path: Path, stored: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
    """Raises: RunMismatch naming the first of the weights that differ in name or shape."""
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (stored, present)]
    differing = sorted(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
    if differing:
        there, here = (each.get(differing[0], "absent") for each in shapes)
        raise RunMismatch(
            f"'{path}' is the state of another kind of adapter (other base model, rank or router): {printable(differing[0])} is {there} "
            f"there and {here} here, {len(differing)} weights differ. Use the earlier settings, or start another run under "
            "another name."
        )
