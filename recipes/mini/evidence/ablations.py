"""The rows of the evidence page: what each changes of the recipe, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.method.layer import MoALayer
from ....moa_attention.method.router import Router
from ..data.scenes import SCENES

PINNED = -1e4
"""A prior bias at which R_1 is 1: the personalised branch alone."""


@dataclass(frozen=True)
class Ablation:
    """One row of the evidence."""

    name: str
    seeds: int = 2
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

    @property
    def single(self) -> bool:
        """Whether the personalised branch takes the place of the prior at every pixel, so that there is no routing."""
        return self.prior_bias == PINNED


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


PAPER = {"consistency_weight": 0.0}
"""The paper has no prior consistency."""
FASTCOMPOSER = {**PAPER, "unmasked": 0.5}
"""Half of the pictures count everywhere, which protects what the base model knows."""
SINGLE = {"router_weight": 0.0}
"""A single attention has no routers to train."""
MOA, CONSISTENT = "MoA", "MoA, prior consistency"
SINGLE_PAPER, SINGLE_FASTCOMPOSER = "single attention", "single attention, FastComposer's losses"
CLAIMS = (MOA, CONSISTENT, SINGLE_PAPER, SINGLE_FASTCOMPOSER)
"""The rows that carry the claims. All others change `CONSISTENT`, which is the recipe of MoA Mini."""
RIVALS = (CONSISTENT, SINGLE_FASTCOMPOSER)
"""The two that are compared at the same identity."""
ABLATIONS = (
    Ablation(MOA, 3, train=PAPER),
    Ablation(CONSISTENT, 3),
    Ablation(SINGLE_PAPER, 3, train=PAPER | SINGLE, prior_bias=PINNED),
    Ablation(SINGLE_FASTCOMPOSER, 3, train=FASTCOMPOSER | SINGLE, prior_bias=PINNED),
    Ablation("MoA, FastComposer's losses", train=FASTCOMPOSER),
    Ablation("hard routing", alter=hard_routing),
    Ablation("routers only on cross-attention", alter=cross_attention_only),
    Ablation("MLP router", adapter={"router": "mlp"}),
    Ablation("no object loss", train={"object_weight": 0.0}),
    Ablation("object loss on the middle layers", train={"object_layers": "middle"}),
    Ablation("no router loss", train={"router_weight": 0.0}),
    Ablation("no space-time encoding", alter=without_space_time),
    Ablation("four image tokens", adapter={"image_tokens": 4}),
    Ablation(f"{CONSISTENT}, all scenes", scenes=tuple(SCENES)),
    Ablation(
        f"{SINGLE_FASTCOMPOSER}, all scenes", train=FASTCOMPOSER | SINGLE, prior_bias=PINNED, scenes=tuple(SCENES)
    ),
)
