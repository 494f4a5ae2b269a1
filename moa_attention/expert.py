"""The personalised expert's projections W_q, W_k, W_v (eq. 8): whole, or as a low-rank difference to the prior's."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

Projection = Callable[[Tensor], Tensor]


class Projections(NamedTuple):
    """The prior's own projections of one attention layer, with whatever LoRA the user put on them."""

    to_q: Projection
    to_k: Projection
    to_v: Projection
    to_out: Projection

    @classmethod
    def of(cls, attention: nn.Module) -> Projections:
        """Those of an attention module that names them as the host does."""
        return cls(*(getattr(attention, name) for name in cls._fields))


class LowRank(nn.Module):
    """x ↦ W_prior x + up(down(x)) with `rank` inner dimensions (ours; the paper trains whole matrices).

    It stores little and trains on small cards; but a LoRA on the base model then reaches the personalised branch too.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        rank: int,
        *,
        operations: ModuleType | type = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.down = operations.Linear(width_in, rank, bias=False, device=device, dtype=dtype)
        self.up = operations.Linear(rank, width_out, bias=False, device=device, dtype=dtype)

    def zero(self) -> None:
        """Make the difference nothing, with a gradient to leave it by."""
        nn.init.normal_(self.down.weight, std=self.down.in_features**-0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, prior: Projection) -> Tensor:
        """(...,in) -> (...,out)"""
        return prior(x) + self.up(self.down(x))


def project(own: nn.Module, prior: Projection, x: Tensor) -> Tensor:
    """x through one projection of the personalised expert, which may lean on the prior's: (...,in) -> (...,out)."""
    return own(x, prior) if isinstance(own, LowRank) else own(x)
