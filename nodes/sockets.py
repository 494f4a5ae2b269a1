"""The types of MoA's own sockets: MOA_ADAPTER, MOA_SUBJECT, MOA_FACE, MOA_LAYER_STRENGTH, MOA_TRACE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ..moa_attention.run.emphasis import PLAIN_STYLE, Style

CATEGORY = "MoA"
"""The menu of all nodes."""

AdapterSocket = io.Custom("MOA_ADAPTER")
SubjectSocket = io.Custom("MOA_SUBJECT")
TraceSocket = io.Custom("MOA_TRACE")
LayerStrengthSocket = io.Custom("MOA_LAYER_STRENGTH")
FaceSocket = io.Custom("MOA_FACE")
"""Face embeddings, (K,512) on the CPU."""


def word_input() -> io.String.Input:
    """The word of the nodes that make a subject."""
    return io.String.Input(
        "word",
        default="man",
        tooltip="The word of the prompt that becomes this subject, for example man, woman or dog.",
    )


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter in the host's care. The host's caches recognise a model by its attribute `patcher`."""

    patcher: Any
    """ModelPatcher of the adapter's module."""
    name: str
    """The file's name in the drop-down."""
    encoder: str
    """Identity of the subjects that it takes, see `Adapter.identity`."""
    licence: str = "not stated"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """The record of its training: data, base model, steps, settings."""
    expert: str = ""
    """`expert_name` of an adapter of which only the routers were trained; Save MoA Adapter saves these alone."""
    encoded: dict = field(default_factory=dict, compare=False, repr=False)
    """What it encoded last: see `host.pictures.encoded`."""


@dataclass(frozen=True)
class SubjectSettings:
    """Strength, window, region and style of one subject."""

    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    """The window in which the subject is active, as parts of sampling in [0,1]."""
    region: Tensor | None = None
    """(h,w) on the CPU in [0,1], the area of the picture that the subject may occupy; None: all of it. (P,h,w) of several frames, of which
    the last holds for all further ones."""
    style: Style = PLAIN_STYLE
    """Only of subjects with image tokens."""


class Tile(NamedTuple):
    """A part of a reference picture, which acts on the same part of the result."""

    features: Tensor
    """As those of a subject."""
    area: Tensor
    """(h,w) on the CPU, 1 in its part of the picture."""


@dataclass(frozen=True)
class Subject:
    """An encoded person or thing, and the word of the prompt that becomes it."""

    word: str
    occurrence: int
    """Which occurrence of the word in the prompt, from 1."""
    features: Tensor
    """(1,F) image feature on the CPU, the mean over its pictures; (P,F) of the pictures of several frames; (0,0) if it has none."""
    encoder: str
    """As `LoadedAdapter.encoder`."""
    settings: SubjectSettings = SubjectSettings()
    tokens: int = 0
    """Image tokens in the features; 0: they are one feature, not tokens."""
    whole_prompt: bool = False
    """Whether it belongs to the whole prompt, and the word is only its name."""
    negative: Tensor | None = None
    """(1,F') what negative prompts get in place of the features, as published for this kind of image prompt; None: not known."""
    tiles: tuple[Tile, ...] = ()
    """Of a picture that was encoded in tiles, which prompts list as a subject each; the features are then those of the first."""

    def with_features(self, features: Tensor) -> Subject:
        """The same subject with other features of the same adapter; the number of tokens follows from their width."""
        return replace(self, features=features, tokens=self.tokens * features.shape[-1] // self.features.shape[-1])

    @property
    def style(self) -> Style:
        """That of its settings, with its features by frame where it has several."""
        own = self.settings.style
        return own if len(self.features) <= 1 else replace(own, frames=self.features)

    @property
    def absent(self) -> bool:
        """Whether it has no picture; prompts leave it out."""
        return not len(self.features)
