"""The ablations of the evidence page: what each changes of the recipe, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.method.layer import MoALayer
from ....moa_attention.method.router import Router
from ..data.scenes import SCENES
from ..model.adapter import SUM

PINNED = -1e4
"""A prior bias at which R_1 is 1: the personalised branch alone."""


@dataclass(frozen=True)
class Ablation:
    """One row of the evidence."""

    name: str
    seeds: int = 1
    """Number of trainings: three for the rows that carry the claims."""
    train: dict[str, Any] = field(default_factory=dict)
    """Changes of the recipe's `TrainConfig`."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """Options of `MoAConfig`."""
    alter: Callable[[MoAAdapter], None] = lambda adapter: None
    """Changes of the fresh adapter for which there is no option."""
    prior_bias: float = 0.0
    """In training and in use."""
    scenes: tuple[str, ...] = ("in a room", "on a stage")
    """Scenes of the training pictures: fewer than the base model knows, as in a user's folder. The evaluation has all."""


class NoEncoding(nn.Module):
    """Replaces the space-time encoding: the same for every timestep and layer."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, t: Tensor, depth: int) -> Tensor:
        """Timesteps (B,) and the number of layers L -> zeros (L,B,width)."""
        return t.new_zeros(depth, len(t), self.width)


class HardRouter(Router):
    """Top-1 routing: the branch with the larger logit alone, with the gradient of the soft router (straight-through)."""

    def forward(self, hidden: Tensor, prior_bias: Tensor | float = 0.0) -> Tensor:
        soft = super().forward(hidden, prior_bias)
        return (soft > 0.5).to(soft.dtype) + soft - soft.detach()


def without_space_time(adapter: MoAAdapter) -> None:
    """Take t and l out of eq. 9."""
    adapter.fusion.add_module("encode", NoEncoding(adapter.config.image_width + adapter.config.text_width))


def hard_routing(adapter: MoAAdapter) -> None:
    """Give every layer a neutral hard router."""
    for layer in adapter.layers.values():
        assert isinstance(layer, MoALayer)
        layer.router = HardRouter(layer.spec.hidden)
        layer.router.zero()


def cross_attention_only(adapter: MoAAdapter) -> None:
    """Remove the layers of self-attention."""
    for spec in adapter.config.layers:
        if not spec.is_cross:
            del adapter.layers[spec.name]


NO_ROUTER_LOSS = {"router_weight": 0.0}
FASTCOMPOSER = {"router_weight": 0.0, "unmasked": 0.5}
"""FastComposer's losses: half of the pictures count everywhere, which protects what the base model knows."""
ALL_SCENES = tuple(SCENES)
ABLATIONS = (
    Ablation("full", seeds=3),
    Ablation("no router loss", seeds=3, train=NO_ROUTER_LOSS),
    Ablation("single fine-tuned attention", seeds=3, train=NO_ROUTER_LOSS, prior_bias=PINNED),
    Ablation("single, FastComposer's losses", train=FASTCOMPOSER, prior_bias=PINNED),
    Ablation("no object loss", train={"object_weight": 0.0}),
    Ablation("no space-time encoding", alter=without_space_time),
    Ablation("routers only on cross-attention", alter=cross_attention_only),
    Ablation("MLP router", adapter={"router": "mlp"}),
    Ablation("rank 4", adapter={"rank": 4}),
    Ablation("rank 16", adapter={"rank": 16}),
    Ablation("rank 64", adapter={"rank": 64}),
    Ablation("router loss without foreground (the paper's)", train={"router_foreground": 0.0}),
    Ablation("λ_r 3e-4", train={"router_weight": 3e-4 * SUM}),
    Ablation("λ_r 1e-3", train={"router_weight": 1e-3 * SUM}),
    Ablation("λ_r 1e-2", train={"router_weight": 1e-2 * SUM}),
    Ablation("hard routing", alter=hard_routing),
    Ablation("λ_o 1e-3 (the paper's)", train={"object_weight": 1e-3}),
    Ablation("λ_o 3e-2", train={"object_weight": 3e-2}),
    Ablation("λ_o 1e-1", train={"object_weight": 1e-1}),
    Ablation("full, all scenes", scenes=ALL_SCENES),
    Ablation("no router loss, all scenes", train=NO_ROUTER_LOSS, scenes=ALL_SCENES),
    Ablation("single, FastComposer's losses, all scenes", train=FASTCOMPOSER, prior_bias=PINNED, scenes=ALL_SCENES),
)
