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
        weight = None if torch.is_grad_enabled() else self.merged(x, prior)
        return prior(x) + self.up(self.down(x)) if weight is None else nn.functional.linear(x, weight)

    def merged(self, x: Tensor, prior: Projection) -> Tensor | None:
        """W_prior + up · down, gone after its use; None where it would be slower for so many x, or weights are not at hand.

        Measured: it pays with more tokens than dimensions, 512 px and the 320 and 640 channels of SD1.5 for example.
        """
        whole, up, down = (weight_at_hand(module, x) for module in (prior, self.up, self.down))
        if whole is None or up is None or down is None:
            return None
        tokens, (width_out, width_in) = x[..., 0].numel(), whole.shape
        pays = tokens * (width_in + width_out) > 2 * width_in * width_out
        return torch.addmm(whole, up, down) if pays else None


def weight_at_hand(module: object, x: Tensor) -> Tensor | None:
    """A bare linear layer's weight where it is what x is multiplied by: not elsewhere, not compressed, and nothing comes to
    it on the way, as hosts do with what they load in parts."""
    weight = getattr(module, "weight", None)
    if (
        type(weight) not in (Tensor, nn.Parameter)
        or weight is None
        or weight.device != x.device
        or weight.dtype != x.dtype
    ):
        return None
    more = getattr(module, "bias", None) is not None or getattr(module, "weight_function", None)
    return None if more else weight


def project(own: nn.Module, prior: Projection, x: Tensor) -> Tensor:
    """x through one projection of the personalised expert, which may lean on the prior's: (...,in) -> (...,out)."""
    return own(x, prior) if isinstance(own, LowRank) else own(x)
