"""Between two subjects (ours): their image features, mixed on a straight line or along the sphere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Along = Literal["straight", "sphere"]
PARALLEL = 1e-4
"""Radians between two features below which sphere and straight line are the same."""


def blend(first: Tensor, second: Tensor, amount: float, along: Along) -> Tensor:
    """Features (1,F) and (1,F) -> (1,F), the first at 0 and the second at 1.

    "sphere" keeps the length that both have on the way, which a straight line between unlike features loses.
    """
    if along == "straight" or amount in (0.0, 1.0):
        return first.lerp(second, amount)
    lengths = [f.norm(dim=-1, keepdim=True).clamp(min=1e-12) for f in (first, second)]
    one, other = first / lengths[0], second / lengths[1]
    angle = torch.acos((one * other).sum(dim=-1, keepdim=True).clamp(-1, 1))
    if float(angle) < PARALLEL:
        return first.lerp(second, amount)
    parts = torch.sin((1 - amount) * angle) * one + torch.sin(amount * angle) * other
    return parts / torch.sin(angle) * lengths[0].lerp(lengths[1], amount)
