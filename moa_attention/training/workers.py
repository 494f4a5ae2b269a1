"""The processes that compute a step: one, or several that share it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn


class Workers(Protocol):
    """One of `count` processes that compute each step together."""

    count: int
    rank: int

    def share(self, objective: nn.Module) -> nn.Module:
        """A module with the same outputs, whose gradients are the mean over all processes."""
        ...

    def no_sync(self, objective: nn.Module) -> AbstractContextManager[object]:
        """Inside, gradients accumulate in this process only."""
        ...

    def mean(self, numbers: Tensor) -> Tensor:
        """(n,) -> (n,), the mean over all processes."""
        ...


class Alone:
    """The only process."""

    count, rank = 1, 0

    def share(self, objective: nn.Module) -> nn.Module:
        return objective

    def no_sync(self, objective: nn.Module) -> AbstractContextManager[object]:
        return nullcontext()

    def mean(self, numbers: Tensor) -> Tensor:
        return numbers
