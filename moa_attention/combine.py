"""Several pictures of one subject become one feature (ours)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

How = Literal["mean", "norm mean", "concat"]
HOWS: tuple[How, ...] = get_args(How)


def combine(features: Sequence[Tensor], weights: Sequence[float], how: How) -> Tensor:
    """Features (1,F) of the same subject -> (1,F), or (1,n·F) for "concat".

    Args:
        weights: how much each counts, relative to the others; "concat" knows no weights.
        how: "mean"; "norm mean", the mean of directions at the mean of lengths, so that no picture counts more because its
            feature is longer; "concat", image tokens side by side.
    Raises: ValueError when weights are negative, or all zero.
    """
    if how == "concat":
        return torch.cat(list(features), dim=-1)
    if min(weights) < 0 or not sum(weights):
        raise ValueError(f"Weights want to be 0 or more, and not all 0: {', '.join(map(str, weights))}.")
    stacked = torch.cat(alike(features))
    parts = stacked.new_tensor(weights)[:, None] / sum(weights)
    if how == "mean":
        return (parts * stacked).sum(dim=0, keepdim=True)
    lengths = stacked.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    direction = (parts * stacked / lengths).sum(dim=0, keepdim=True)
    return direction / direction.norm().clamp(min=1e-12) * (parts * lengths).sum()


def alike(features: Sequence[Tensor]) -> list[Tensor]:
    """Features (...,F_i) at one width: image tokens are said again as often as needed, which no attention over them notices."""
    width = math.lcm(*(f.shape[-1] for f in features))
    return [torch.cat([f] * (width // f.shape[-1]), dim=-1) for f in features]
