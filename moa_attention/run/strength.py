"""Strength as a bias of the routers, and its factors for parts of the base model (ours; not part of the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..method.spec import LayerSpec

PRIOR_ONLY = 1e4
"""A prior bias at which R is exactly (1, 0) in float32."""


def bias_from_strength(strength: float) -> float:
    """The prior's logit bias at which the odds of the personalised branch are multiplied by `strength`."""
    return -math.log(strength) if strength > 0 else PRIOR_ONLY


@dataclass(frozen=True)
class LayerStrength:
    """A factor for every attention layer: that of its stage times that of its kind, unless its name has one of its own."""

    stages: Mapping[str, float]
    """By stage: `input`, `middle`, `output`."""
    self_attention: float
    cross_attention: float
    named: Mapping[str, float]
    """By layer name, or by its beginning: `output_3_0_attn2`, `output_3`. The longest that fits a layer replaces the product."""

    def of(self, spec: LayerSpec) -> float:
        """The factor of a layer."""
        fitting = [name for name in self.named if begins(spec, name)]
        if fitting:
            return self.named[max(fitting, key=len)]
        return self.stages[spec.stage] * (self.cross_attention if spec.is_cross else self.self_attention)

    def by_layer(self, layers: Iterable[LayerSpec]) -> dict[str, float]:
        """The factors that differ from 1, by layer name.

        Raises: ValueError when a name in `named` fits no layer.
        """
        layers = list(layers)
        unknown = [name for name in self.named if not any(begins(spec, name) for spec in layers)]
        if unknown:
            raise ValueError(
                f"No attention layer of this adapter has a name that begins with {' or '.join(unknown)}. The layers are: "
                f"{', '.join(spec.name for spec in layers)}. The beginning of a name stands for all layers that begin with it."
            )
        return {spec.name: factor for spec in layers if (factor := self.of(spec)) != 1}


def begins(spec: LayerSpec, name: str) -> bool:
    """Whether a layer's name begins with whole parts: `output_1` fits `output_1_0_attn2`, not `output_11_0_attn2`."""
    return f"{spec.name}_".startswith(f"{name}_")


def read_factors(text: str) -> dict[str, float]:
    """'output_3: 0.5, middle_0: 0' -> {'output_3': 0.5, 'middle_0': 0.0}

    Raises: ValueError naming the entry that is not a layer with a factor.
    """
    factors = {}
    for entry in text.replace("\n", ",").split(","):
        name, colon, value = entry.partition(":")
        if not entry.strip():
            continue
        try:
            factor = float(value)
        except ValueError:
            factor = -1.0
        if not colon or factor < 0:
            raise ValueError(
                f"'{entry.strip()}' is not the name of a layer with a factor of 0 or more, such as 'output_3: 0.5'. Correct "
                "'single' in 'Layer Strength (MoA)'."
            )
        factors[name.strip()] = factor
    return factors
