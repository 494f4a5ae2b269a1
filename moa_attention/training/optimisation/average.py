"""The average of the weights, which is the result of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def averaging(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """The update of the averaged weights, for `AveragedModel`: an exponential average whose decay rises to `decay`.

    After n updates it is (1 + n) / (10 + n), the warm-up that TensorFlow's average has: a short run is averaged over its
    last part, where a constant decay would return mostly the weights of its start.
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        for mean, new in zip(averaged, current, strict=True):
            mean.lerp_(new, 1 - now)

    return update
