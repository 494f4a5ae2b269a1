"""The personalised expert's projections W_q, W_k, W_v (eq. 8): whole, or as a low-rank difference to the prior's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .factory import PLAIN, Factory

Projection = Callable[[Tensor], Tensor]
MATRICES = ("to_q", "to_k", "to_v", "to_out")


class Projections(NamedTuple):
    """The prior's own projections of one attention layer, including any LoRA on the model."""

    to_q: Projection
    to_k: Projection
    to_v: Projection
    to_out: Projection
    difference: float = 1.0
    """Factor of the low-rank differences of an image prompt adapter."""

    @classmethod
    def of(cls, attention: nn.Module) -> Projections:
        """Those of an attention module that names them as the host does."""
        return cls(*(getattr(attention, name) for name in MATRICES))


class LowRank(nn.Module):
    """x ↦ W_prior x + up(down(x)) with `rank` inner dimensions (ours; the paper trains whole matrices).

    It is small on disk and trains on small cards. A LoRA on the base model then reaches the personalised branch, too.
    """

    def __init__(self, width_in: int, width_out: int, rank: int, factory: Factory = PLAIN):
        super().__init__()
        self.changes_weight = factory.changes_weight
        self.down = factory.linear(width_in, rank, bias=False)
        self.up = factory.linear(rank, width_out, bias=False)

    def zero(self) -> None:
        """Set the difference to zero, with a gradient that leads away from it."""
        nn.init.normal_(self.down.weight, std=self.down.in_features**-0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, prior: Projection, factor: float = 1.0) -> Tensor:
        """(...,in) -> (...,out)

        Args: factor: of the difference.
        """
        weight = None if torch.is_grad_enabled() else self.merged(x, prior, factor)
        if weight is not None:
            return nn.functional.linear(x, weight)
        difference = self.up(self.down(x))
        return prior(x) + (difference if factor == 1 else factor * difference)

    def merged(self, x: Tensor, prior: Projection, factor: float = 1.0) -> Tensor | None:
        """W_prior + factor · up · down, not kept; None where merging is slower for this many x, or where a weight is not plain.

        Measured: merging pays with more tokens than dimensions, for example at 512 px in the 320 and 640 channels of SD1.5.
        """
        layers = (prior, self.up, self.down)
        whole, up, down = (plain_weight(layer, x) for layer in layers)
        if whole is None or up is None or down is None or any(map(self.changes_weight, layers)):
            return None
        tokens, (width_out, width_in) = x[..., 0].numel(), whole.shape
        pays = tokens * (width_in + width_out) > 2 * width_in * width_out
        return torch.addmm(whole, up, down, alpha=factor) if pays else None


def plain_weight(module: object, x: Tensor) -> Tensor | None:
    """The weight of a linear layer that does nothing but multiply x by it.

    None for weights on another device, of another precision or compressed, and for layers with a bias.
    """
    weight = getattr(module, "weight", None)
    if type(weight) not in (Tensor, nn.Parameter) or weight is None:
        return None
    if weight.device != x.device or weight.dtype != x.dtype:
        return None
    return weight if getattr(module, "bias", None) is None else None


def project(own: nn.Module, prior: Projection, x: Tensor) -> Tensor:
    """x through one projection of the personalised expert, which may build on the prior's: (...,in) -> (...,out)."""
    return own(x, prior) if isinstance(own, LowRank) else own(x)
