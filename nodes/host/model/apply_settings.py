"""What the Apply MoA nodes of a model decide for all of its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from ..prompts.negative_image import NegativeImage
from ..prompts.payload_names import PayloadNames, names_at
from .attachment import Attachment
from .file_lora import Patches
from .run_subjects import RunSubjects
from .tiles import TiledCalls


@dataclass(frozen=True)
class ApplySettings:
    """How an adapter is applied: see `patch.apply_adapter`."""

    encoder: str
    """Identity of the adapter, which subjects must share."""
    negative_image: NegativeImage
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
    budget: Budget | AutomaticBudget
    prompt_cache: PromptCache
    schedule: Schedule
    subjects: RunSubjects
    guidance: SubjectGuidance | None
    observers: Sequence[RunListener]
    """The trace, or what records a training step."""
    notify: Callable[[str], None]
    """Receives the note on each run that ended."""
    weights: Patches = field(default_factory=dict)
    """Of the base model, from the file's LoRA."""
    place: int = 0
    """The number of adapters that were applied to the model before."""

    @property
    def names(self) -> PayloadNames:
        """Of what prompts carry for this adapter."""
        return names_at(self.place)

    def listeners(self) -> Iterator[RunListener]:
        """Everything that follows a run."""
        yield from self.observers
        yield from filter(None, (self.guidance, self.router, self.places))
        yield self.budget
        yield self.prompt_cache
        yield self.schedule

    def inactive(self, t: Tensor, sampling: Any) -> bool:
        """Whether no subject has a share at a noise level (B,). A narrowed window costs one read of it a step."""
        if self.prior_bias >= PRIOR_ONLY or self.window is None:
            return self.prior_bias >= PRIOR_ONLY
        first, last = (self.schedule.noise_level(sampling, percent) for percent in self.window)
        return not last < float(t[0]) <= first


@dataclass(frozen=True)
class Applications:
    """Everything that is applied to one model. What the model and the earlier adapters give together is the prior of the next."""

    every: tuple[ApplySettings, ...] = ()
    tiles: TiledCalls = field(default_factory=TiledCalls)

    def followed_by(self, settings: ApplySettings) -> Applications:
        """With one more, in place of an earlier one for the same subjects.

        Raises: ValueError when two of them keep the background.
        """
        every = [*(each for each in self.every if each.encoder != settings.encoder), settings]
        if sum(each.guidance is not None for each in every) > 1:
            raise ValueError(
                "'keep_background' is on in two 'Apply MoA' nodes of one model, but only one of them can keep the background. Turn it off in "
                "the others."
            )
        return Applications(tuple(replace(each, place=place) for place, each in enumerate(every)))

    @property
    def encoders(self) -> list[str]:
        """Identities of the adapters."""
        return [each.encoder for each in self.every]

    @property
    def keeper(self) -> ApplySettings | None:
        """The one that keeps the background."""
        return next((each for each in self.every if each.guidance is not None), None)

    def listeners(self) -> Iterator[RunListener]:
        """Everything that follows a run."""
        for each in self.every:
            yield from each.listeners()
        yield self.tiles
