"""Strength as a bias of the routers (ours; not part of the paper)."""

from __future__ import annotations

import math

PRIOR_ONLY = 1e4
"""A prior bias at which R is exactly (1, 0) in float32."""


def bias_from_strength(strength: float) -> float:
    """The prior's logit bias at which the odds of the personalised branch are multiplied by `strength`."""
    return -math.log(strength) if strength > 0 else PRIOR_ONLY
