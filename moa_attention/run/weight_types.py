"""Where in the U-Net an image prompt acts: the weight types that users of IPAdapter_plus know, one table of factors.

The factors multiply the strength. They are those of the blocks with attention in the order of execution: 16 of SD1.5, 11 of SDXL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..method.spec import LayerSpec

STAGES = {16: {"input": 6, "middle": 1, "output": 9}, 11: {"input": 4, "middle": 1, "output": 6}}
"""Blocks of each stage, by the number of all."""
Factors = tuple[float, ...]


class WeightType(NamedTuple):
    """One weight type."""

    sd15: Factors
    sdxl: Factors
    swapped_sd15: frozenset[int] = frozenset()
    swapped_sdxl: frozenset[int] = frozenset()
    """Blocks in which the negative prompt gets the picture, and the prompt gets nothing."""


def along(curve: Callable[[float], float]) -> WeightType:
    """From 0.05 to 1 by a curve of the position in [0,1)."""
    sd15, sdxl = (tuple(0.05 + 0.95 * curve(t / n) for t in range(n)) for n in (16, 11))
    return WeightType(sd15, sdxl)


def weak(*stages: str) -> WeightType:
    """A fifth in some stages."""
    by_base = [[(0.2 if stage in stages else 1.0, n) for stage, n in STAGES[count].items()] for count in (16, 11)]
    sd15, sdxl = (tuple(factor for factor, n in each for _ in range(n)) for each in by_base)
    return WeightType(sd15, sdxl)


def only(sd15: Mapping[int, float], sdxl: Mapping[int, float], rest: float = 0.0) -> tuple[Factors, Factors]:
    """Some blocks with factors; `rest` is that of SDXL's others."""
    return tuple(sd15.get(t, 0.0) for t in range(16)), tuple(sdxl.get(t, rest) for t in range(11))


STYLE: dict[int, float] = dict.fromkeys([0, 1, 2, 3, *range(9, 16)], 1.0)
SHAPE: dict[int, float] = {4: 0.25, 5: 1.0}
"""Blocks of SD1.5 that decide the composition."""
STRONG_STYLE = dict.fromkeys(set(range(16)) - SHAPE.keys(), 1.0), dict.fromkeys(set(range(11)) - {3}, 1.0)
FAINT = {6: 0.1, 7: 0.1, 8: 0.1}

WEIGHT_TYPES: dict[str, WeightType] = {
    "linear": WeightType((1.0,) * 16, (1.0,) * 11),
    "ease in": along(lambda x: 1 - x),
    "ease out": along(lambda x: x),
    "ease in-out": along(lambda x: 1 - abs(2 * x - 1)),
    "reverse in-out": along(lambda x: abs(2 * x - 1)),
    "weak input": weak("input"),
    "weak output": weak("output"),
    "weak middle": weak("middle"),
    "strong middle": weak("input", "output"),
    "style transfer": WeightType(*only(STYLE, {6: 1.0})),
    "composition": WeightType(*only(SHAPE, {3: 1.0})),
    "strong style transfer": WeightType(*only(*STRONG_STYLE)),
    "style and composition": WeightType(*only(STYLE | SHAPE, {3: 1.0, 6: 1.0})),
    "style transfer precise": WeightType(
        *only(STYLE | SHAPE, {3: 1.0, 6: 1.0}), frozenset(SHAPE), frozenset({3})
    ),
    "composition precise": WeightType(
        *only(STYLE | SHAPE | FAINT, {3: 1.0, 6: 1.0}, rest=0.1), frozenset(range(16)) - SHAPE.keys(), frozenset(range(11)) - {3}
    ),
}  # fmt: skip
LINEAR = "linear"


def block_numbers(layers: Sequence[LayerSpec]) -> dict[str, int]:
    """Of every cross-attention layer, the number of its block: SDXL's blocks have several layers."""
    cross = [spec for spec in sorted(layers, key=lambda spec: spec.depth) if spec.is_cross]
    places = list(dict.fromkeys(spec.name.rsplit("_", 2)[0] for spec in cross))
    return {spec.name: places.index(spec.name.rsplit("_", 2)[0]) for spec in cross}


def type_factors(name: str, layers: Sequence[LayerSpec], swapped: bool = False) -> dict[str, float]:
    """The factors of a weight type by layer name.

    Args: swapped: those in the blocks where the negative prompt gets the picture; else those in all others.
    Raises: ValueError when the base model has other blocks than SD1.5 and SDXL.
    """
    numbers, chosen = block_numbers(layers), WEIGHT_TYPES[name]
    count = 1 + max(numbers.values(), default=-1)
    if name == LINEAR:
        return dict.fromkeys(numbers, 0.0 if swapped else 1.0)
    if count not in STAGES:
        raise ValueError(
            f"The weight type '{name}' of 'Subject Settings (MoA)' is known for SD1.5 (16 blocks) and SDXL (11 blocks), but this adapter "
            f"acts in {count} blocks. Choose '{LINEAR}', and 'Layer Strength (MoA)' for parts of the model."
        )
    small = count == 16
    factors, other = (chosen.sd15, chosen.swapped_sd15) if small else (chosen.sdxl, chosen.swapped_sdxl)
    return {layer: factors[t] if (t in other) == swapped else 0.0 for layer, t in numbers.items()}
