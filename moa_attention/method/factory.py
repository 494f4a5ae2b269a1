"""Where the adapter's layers come from: the host's casting operations or `torch.nn`, with a device and a precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn


def never(layer: object) -> bool:
    """For hosts that leave weights alone."""
    del layer
    return False


@dataclass(frozen=True)
class Factory:
    """Builds the leaves of every adapter module (ours).

    A host passes its own operations, which cast weights on use and stream them from memory; training uses `torch.nn`.
    """

    operations: ModuleType | type = nn
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    changes_weight: Callable[[object], bool] = never
    """Whether the host changes a layer's weight between memory and product, as for weights that are loaded in parts."""

    def linear(self, width_in: int, width_out: int, bias: bool = True) -> nn.Linear:
        return self.operations.Linear(width_in, width_out, bias=bias, device=self.device, dtype=self.dtype)

    def layer_norm(self, width: int) -> nn.LayerNorm:
        return self.operations.LayerNorm(width, device=self.device, dtype=self.dtype)

    def group_norm(self, groups: int, channels: int) -> nn.GroupNorm:
        return self.operations.GroupNorm(groups, channels, device=self.device, dtype=self.dtype)

    def convolution(
        self, channels_in: int, channels_out: int, side: int, stride: int = 1, padding: int = 1
    ) -> nn.Conv2d:
        """A square kernel of `side` pixels."""
        place = {"device": self.device, "dtype": self.dtype}
        return self.operations.Conv2d(channels_in, channels_out, side, stride=stride, padding=padding, **place)

    def parameter(self, *shape: int) -> nn.Parameter:
        """A bare parameter without initial values."""
        return nn.Parameter(torch.empty(shape, device=self.device, dtype=self.dtype))


PLAIN = Factory()
"""torch's own layers on the default device."""
