"""What Apply MoA decides for all calls of its model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ....moa_attention.method.spec import LayerSpec
from ....moa_attention.routers.base import TrainingFreeRouter
from ....moa_attention.routers.words import PlaceRouter
from ....moa_attention.run.budget import AutomaticBudget, Budget
from ....moa_attention.run.guidance import SubjectGuidance
from ....moa_attention.run.listener import RunListener
from ....moa_attention.run.prompt_cache import PromptCache
from ....moa_attention.run.schedule import Schedule
from ....moa_attention.run.strength import PRIOR_ONLY
from .attachment import Attachment
from .run_subjects import RunSubjects
from .tiles import TiledCalls


@dataclass(frozen=True)
class ApplySettings:
    """How an adapter is applied: see `patch.apply_adapter`."""

    attachment: Attachment
    paths: Mapping[str, str]
    """Submodule paths of attention layers by name."""
    layers: Sequence[LayerSpec]
    """Those of the adapter."""
    prior_bias: float
    window: tuple[float, float] | None
    """The part of the sampling in which the personalised branch is active, from and to, in 0..1; None: all of it."""
    router: TrainingFreeRouter | None
    places: PlaceRouter | None
    """Divides the share of the adapter's own routers among subjects of different strengths; None where `router` does."""
    layer_strength: Mapping[str, float]
    """Factors of the strength by layer name, where they are not 1."""
    lora_strength: float
    """Of the LoRA in a FaceID file."""
    lora_only: Collection[str]
    """Names of the layers that image prompts do not reach, but the LoRA does."""
    budget: Budget | AutomaticBudget
    prompt_cache: PromptCache
    schedule: Schedule
    tiles: TiledCalls
    subjects: RunSubjects
    guidance: SubjectGuidance | None
    observers: Sequence[RunListener]
    """The trace, or what records a training step."""
    notify: Callable[[str], None]
    """Receives the note on each run that ended."""

    def listeners(self) -> Iterator[RunListener]:
        """Everything that follows a run."""
        yield from self.observers
        yield from filter(None, (self.guidance, self.router, self.places))
        yield self.budget
        yield self.prompt_cache
        yield self.schedule
        yield self.tiles

    def inactive(self, t: Tensor, sampling: Any) -> bool:
        """Whether no subject has a share at a noise level (B,). A narrowed window costs one read of it a step."""
        if self.prior_bias >= PRIOR_ONLY or self.window is None:
            return self.prior_bias >= PRIOR_ONLY
        first, last = (self.schedule.noise_level(sampling, percent) for percent in self.window)
        return not last < float(t[0]) <= first
