"""What an optimiser changes while it trains, as flat names and values: its moments, and numbers in its groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

GROUP = "group"
OPTIONS = {"params", "lr"}
"""In the groups, but set by the run."""


class OptimiserState:
    """The state of an optimiser that was just made.

    Some optimisers keep numbers in their groups (Prodigy its estimate of the learning rate, Schedule-Free the sum of its
    weights), beside options that a resumed run may change. Those that differ from the first ones are the state.
    """

    def __init__(self, optimiser: torch.optim.Optimizer):
        self.optimiser = optimiser
        self.first = [dict(group) for group in optimiser.param_groups]

    def values(self) -> dict[str, Any]:
        """Tensors and plain numbers by `parameter.name`, or `group.number.name`."""
        state = self.optimiser.state_dict()["state"]
        found = {".".join(path): value for path, value in leaves(state)}
        places: set[int] = set()
        for name, value in found.items():
            if isinstance(
                value, Tensor
            ):  # bitsandbytes shares tables among parameters, which safetensors does not write
                found[name] = value.clone() if value.data_ptr() in places else value
                places.add(value.data_ptr())
        for number, (group, first) in enumerate(zip(self.optimiser.param_groups, self.first, strict=True)):
            for name, value in group.items():
                if name not in OPTIONS and differs(value, first.get(name)):
                    found[f"{GROUP}.{number}.{name}"] = value
        return found

    def restore(self, values: Mapping[str, Any]) -> None:
        """Set what `values` returned."""
        moments: dict[int, dict[str, Any]] = {}
        for name, value in values.items():
            first, *path, last = name.split(".")
            if first != GROUP:
                target: dict[str, Any] = moments.setdefault(int(first), {})
                for part in path:
                    target = target.setdefault(part, {})
                target[last] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        for name, value in values.items():
            first, number, *rest = name.split(".")
            if first == GROUP:
                self.optimiser.param_groups[int(number)][rest[0]] = value


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of nested dicts with their keys; some optimisers nest."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, inner in value.items():
        yield from leaves(inner, (*path, str(name)))


def differs(value: Any, first: Any) -> bool:
    """Whether a number or tensor of a group differs from its first value."""
    if isinstance(value, Tensor) or isinstance(first, Tensor):
        return not (isinstance(value, Tensor) and isinstance(first, Tensor) and torch.equal(value, first))
    return value != first
