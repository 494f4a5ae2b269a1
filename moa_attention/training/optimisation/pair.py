"""Two optimisers of different parameters as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class PairedOptimiser(torch.optim.Optimizer):
    """Steps both; its parameters are numbered through, those of the first one first."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer):
        self.parts = (first, second)
        self.defaults: dict[str, Any] = {}
        self.param_groups = [*first.param_groups, *second.param_groups]

    def step(self, closure: None = None) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        state, groups = {}, []
        for part in self.parts:
            stored, start = part.state_dict(), len(state_numbers(groups))
            state |= {start + number: values for number, values in stored["state"].items()}
            groups += [{**g, "params": [start + n for n in g["params"]]} for g in stored["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        start = 0
        for part in self.parts:
            numbers = range(start, start + len(state_numbers(part.state_dict()["param_groups"])))
            state = {n - start: values for n, values in state_dict["state"].items() if n in numbers}
            part.load_state_dict({**part.state_dict(), "state": state})
            start = numbers.stop
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def state_numbers(groups: list[dict[str, Any]]) -> list[int]:
    """The numbers of the parameters in these groups."""
    return [number for group in groups for number in group["params"]]
