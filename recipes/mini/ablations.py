"""The variants of the evidence page: what each changes of the recipe, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.router import Router
from .scenes import SCENES

PINNED = -1e4
"""A prior bias at which only the personalised branch speaks."""


@dataclass(frozen=True)
class Variant:
    """One row of the evidence."""

    name: str
    seeds: int = 1
    """How many trainings: three for the rows that carry the claims."""
    train: dict[str, Any] = field(default_factory=dict)
    """Changes of the recipe's `TrainConfig`."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """Options of `MoAConfig`."""
    alter: Callable[[MoAAdapter], None] = lambda adapter: None
    """Changes of the fresh adapter that no option stands for."""
    prior_bias: float = 0.0
    """In training and in use."""
    places: tuple[str, ...] = ("in a room", "on a stage")
    """Where the pictures of the training are taken, as people's folders show less of the world than their base model
    knows. What is measured is painted in all places."""


class Nowhere(nn.Module):
    """In the place of the space-time encoding: every timestep and layer looks the same."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, t: Tensor, depth: int) -> Tensor:
        return t.new_zeros(depth, len(t), self.width)


class HardRouter(Router):
    """Top-1: the branch with the larger logit speaks alone; gradients pass as if it were soft."""

    def forward(self, hidden: Tensor, prior_bias: Tensor | float = 0.0) -> Tensor:
        soft = super().forward(hidden, prior_bias)
        return (soft > 0.5).to(soft.dtype) + soft - soft.detach()


def without_space_time(adapter: MoAAdapter) -> None:
    adapter.fusion.encode = Nowhere(adapter.fusion.norm_place.normalized_shape[0])


def hard_routing(adapter: MoAAdapter) -> None:
    for layer in adapter.layers.values():
        layer.router.__class__ = HardRouter


def cross_attention_only(adapter: MoAAdapter) -> None:
    for name in [name for name in adapter.layers if name.endswith("attn1")]:
        del adapter.layers[name]


NO_ROUTER_LOSS = {"router_weight": 0.0}
FASTCOMPOSER = {"router_weight": 0.0, "unmasked": 0.5}
"""Its losses: half of the pictures count everywhere, which is how it protects what the base model knows."""
EVERYWHERE = tuple(SCENES)
VARIANTS = (
    Variant("full", seeds=3),
    Variant("no router loss", seeds=3, train=NO_ROUTER_LOSS),
    Variant("single fine-tuned attention", seeds=3, train=NO_ROUTER_LOSS, prior_bias=PINNED),
    Variant("single, FastComposer's losses", train=FASTCOMPOSER, prior_bias=PINNED),
    Variant("no object loss", train={"object_weight": 0.0}),
    Variant("no space-time encoding", alter=without_space_time),
    Variant("routers only on cross-attention", alter=cross_attention_only),
    Variant("MLP router", adapter={"router": "mlp"}),
    Variant("rank 4", adapter={"rank": 4}),
    Variant("rank 16", adapter={"rank": 16}),
    Variant("rank 64", adapter={"rank": 64}),
    Variant("router loss without foreground (the paper's)", train={"router_foreground": 0.0}),
    Variant("λ_r 3e-4", train={"router_weight": 3e-4}),
    Variant("λ_r 1e-3", train={"router_weight": 1e-3}),
    Variant("λ_r 1e-2", train={"router_weight": 1e-2}),
    Variant("hard routing", alter=hard_routing),
    Variant("λ_o 1e-3 (the paper's)", train={"object_weight": 1e-3}),
    Variant("λ_o 3e-2", train={"object_weight": 3e-2}),
    Variant("λ_o 1e-1", train={"object_weight": 1e-1}),
    Variant("full, all places", places=EVERYWHERE),
    Variant("no router loss, all places", train=NO_ROUTER_LOSS, places=EVERYWHERE),
    Variant("single, FastComposer's losses, all places", train=FASTCOMPOSER, prior_bias=PINNED, places=EVERYWHERE),
)
