"""A routed layer in one call: gate, keys and values, and the mixture, as an attachment computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moa_attention.method.expert import Projections
from moa_attention.method.layer import Limits, Observe, Pixels, RoutedLayer, attend
from moa_attention.method.spec import LayerSpec
from moa_attention.run.listener import CallInfo
from moa_attention.run.view import View

WHOLE = View(0, 0, 0, 8, 12, (8, 12))


def run(
    layer: Any,
    hidden: Tensor,
    context: Any,
    prior: Tensor,
    base: Projections,
    grid: tuple[int, int],
    *,
    prior_bias: Tensor | float = 0.0,
    shares: Tensor | None = None,
    bounds: Tensor | None = None,
    pixels: Pixels = None,
    observe: Observe | None = None,
) -> Tensor:
    """(B,N,D), from the context as `keys_values` takes it."""
    assert isinstance(layer, RoutedLayer)
    gate = layer.gate(hidden, Limits(prior_bias, shares, bounds))
    keys_values = None if pixels == 0 else layer.keys_values(context, base)
    return layer(hidden, prior, base, gate, keys_values, grid, pixels=pixels, attend=attend, observe=observe)


def spec(name: str, depth: int, hidden: int, context: int, heads: int, supervised: bool) -> LayerSpec:
    """A layer of a U-Net by its name, `input_1_0_attn2` for example."""
    stage, *_, attention = name.split("_")
    kind = "cross" if attention == "attn2" else "self"
    return LayerSpec(name, stage, kind, depth, hidden, context, heads, supervised)


def call_info(sigma: float = 1.0, views: Sequence[View | None] = (WHOLE,), **fields: Any) -> CallInfo:
    """A call whose other fields are empty."""
    fields.setdefault("prompts", [0] * len(views))
    return CallInfo(torch.tensor(sigma), views, **fields)
