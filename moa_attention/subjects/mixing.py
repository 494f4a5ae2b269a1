"""Several features become one: pictures of one subject are combined, two subjects are blended (ours)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

CombineMode = Literal["mean", "norm mean", "concat", "add", "subtract"]
COMBINE_MODES: tuple[CombineMode, ...] = get_args(CombineMode)
BlendPath = Literal["sphere", "straight"]
BLEND_PATHS: tuple[BlendPath, ...] = get_args(BlendPath)
WIDEST = 1 << 22
"""Numbers of a feature, as in subject files: 4096 image tokens of 1024."""
MIN_LENGTH = 1e-12
MIN_ANGLE = 1e-4
"""Radians between two features below which both blend paths are the same."""


def combine(features: Sequence[Tensor], weights: Sequence[float], mode: CombineMode) -> Tensor:
    """Features (1,F) of the same subject -> (1,F), or (1,n·F) for "concat".

    Args:
        weights: relative to each other; factors for "add" and "subtract"; not used by "concat".
        mode: "mean"; "norm mean", the mean direction at the mean length, so that a longer feature counts no more than a
            short one; "concat", image tokens side by side; "add", the sum; "subtract", the first without the mean of the others.
    Raises: ValueError when weights are negative, not finite, or all zero; as `common_width`.
    """
    if mode == "concat":
        common_width([sum(f.shape[-1] for f in features)])
        return torch.cat(list(features), dim=-1)
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
        raise ValueError(
            f"Weights must be 0 or more, and at least one of them above 0; found {', '.join(map(str, weights))}."
        )
    stacked = torch.cat(repeat_to_common_width(features))
    if mode in ("add", "subtract"):
        weighted = stacked.new_tensor(weights)[:, None] * stacked
        return weighted.sum(dim=0, keepdim=True) if mode == "add" else without_others(weighted)
    parts = stacked.new_tensor(weights)[:, None] / sum(weights)
    if mode == "mean":
        return (parts * stacked).sum(dim=0, keepdim=True)
    lengths = stacked.norm(dim=-1, keepdim=True).clamp(min=MIN_LENGTH)
    direction = (parts * stacked / lengths).sum(dim=0, keepdim=True)
    return direction / direction.norm().clamp(min=MIN_LENGTH) * (parts * lengths).sum()


def without_others(inputs: Tensor) -> Tensor:
    """The first of several without the mean of the others: (K,...) -> (1,...)"""
    return inputs[:1] - inputs[1:].mean(dim=0, keepdim=True) if len(inputs) > 1 else inputs


def combine_inputs(inputs: Tensor, mode: CombineMode) -> Tensor:
    """What an adapter encodes, of several pictures, as one, before its projection: (K,...) -> (1,...). So IPAdapter_plus combines.

    Its "norm mean" divides every number by the length of that number's vector over the pictures. "concat" keeps all: (K,...).
    """
    if mode == "concat" or len(inputs) == 1:
        return inputs
    if mode == "subtract":
        return without_others(inputs)
    if mode == "norm mean":
        inputs = inputs / inputs.norm(dim=0, keepdim=True)
    return inputs.sum(dim=0, keepdim=True) if mode == "add" else inputs.mean(dim=0, keepdim=True)


def common_width(widths: Iterable[int]) -> int:
    """The width to which features of different widths are repeated.

    Raises: ValueError when it is above `WIDEST`.
    """
    given = sorted(set(widths))
    width = math.lcm(*given)
    if width > WIDEST:
        raise ValueError(
            f"Subjects with features of {', '.join(map(str, given))} numbers need {width} numbers each when they are used together; "
            f"allowed are {WIDEST}. Combine fewer pictures, or equally many for each subject."
        )
    return width


def repeat_to_common_width(features: Sequence[Tensor]) -> list[Tensor]:
    """Features (...,F_i) of one width: image tokens are repeated, which leaves any attention over them unchanged.

    Raises: ValueError as `common_width`.
    """
    width = common_width(f.shape[-1] for f in features)
    return [torch.cat([f] * (width // f.shape[-1]), dim=-1) for f in features]


def blend(first: Tensor, second: Tensor, amount: float, path: BlendPath) -> Tensor:
    """Features (1,F) and (1,F) -> (1,F), the first at 0 and the second at 1.

    "straight" is linear. "sphere" is spherical linear interpolation (Shoemake 1985) of the directions and linear in the
    lengths: the length does not drop halfway between unlike features, as it does on the straight path.
    """
    if path == "straight" or amount in (0.0, 1.0):
        return first.lerp(second, amount)
    lengths = [f.norm(dim=-1, keepdim=True).clamp(min=MIN_LENGTH) for f in (first, second)]
    one, other = first / lengths[0], second / lengths[1]
    angle = torch.acos((one * other).sum(dim=-1, keepdim=True).clamp(-1, 1))
    if float(angle) < MIN_ANGLE:
        return first.lerp(second, amount)
    parts = torch.sin((1 - amount) * angle) * one + torch.sin(amount * angle) * other
    return parts / torch.sin(angle) * lengths[0].lerp(lengths[1], amount)
