"""How MoA attaches to an architecture of base models; `unet.py` is the first implementation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import nn

from ....moa_attention.method.expert import Projections
from ....moa_attention.method.spec import LayerSpec

KEY = "moa"
"""Under which our wrappers, models and per-call state are registered with the host."""


class AttentionLayer(NamedTuple):
    """One attention layer of a base model."""

    spec: LayerSpec
    path: str
    """Its submodule path in the diffusion model."""


class Attachment(Protocol):
    """Finds the attention layers of one architecture and blends the personalised branch into them."""

    def layers(self, base: nn.Module) -> list[AttentionLayer]:
        """Every self- and cross-attention layer of a host model (`ModelPatcher.model`), in execution order.

        Raises: ValueError for any other architecture.
        """
        ...

    def projections(self, attention: nn.Module) -> Projections:
        """The base model's own projections of an attention layer."""
        ...

    def enclosing(self, patches: Mapping[str, list]) -> dict[str, list]:
        """A call's patches with those that capture and blend added, the captures first and the blends last.

        A model has none of these between its calls: some packs expect only patches there that they know.
        """
        ...
