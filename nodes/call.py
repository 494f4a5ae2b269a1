"""What our patches need during one U-Net call: made once by `patch.begin_call`, changed by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from ..moa_attention.expert import Projections
from ..moa_attention.image_prompt import ImagePromptLayer
from ..moa_attention.layer import MoALayer, Observe
from ..moa_attention.step import Step
from ..moa_attention.untrained import Watch


@dataclass(frozen=True)
class Call:
    """One U-Net call with subjects."""

    step: Step
    layers: nn.ModuleDict
    """The adapter's layers, on this call's device."""
    unet: nn.Module
    paths: dict[str, str]
    observe: Observe | None
    watch: Watch | None
    """Of an untrained router that looks on."""

    def layer(self, name: str) -> MoALayer | ImagePromptLayer | None:
        return cast("MoALayer", self.layers[name]) if name in self.layers else None

    def projections(self, name: str) -> Projections:
        """The base model's own projections of a layer."""
        return Projections.of(self.unet.get_submodule(self.paths[name]))
