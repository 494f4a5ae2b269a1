"""What our own sockets carry: MOA_ADAPTER, MOA_SUBJECT, MOA_FACE, MOA_LAYER_STRENGTH, MOA_TRACE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

AdapterSocket = io.Custom("MOA_ADAPTER")
SubjectSocket = io.Custom("MOA_SUBJECT")
TraceSocket = io.Custom("MOA_TRACE")
LayerStrengthSocket = io.Custom("MOA_LAYER_STRENGTH")
FaceSocket = io.Custom("MOA_FACE")
"""Face embeddings, (K,512) on the CPU."""


@dataclass(frozen=True)
class Adapter:
    """A loaded adapter. Its `.patcher` tells the host's caches that this holds a model."""

    patcher: Any
    """ModelPatcher around a `MoAAdapter`."""
    name: str
    encoder: str
    """Identity of the image features it understands: the CLIP vision model's name, or its own encoder's fingerprint."""
    licence: str = "not stated"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What it says of its making: data, base, steps, settings."""


@dataclass(frozen=True)
class Terms:
    """When, where and how loudly a subject may speak."""

    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    """The part of sampling, 0..1."""
    region: Tensor | None = None
    """(h,w) on the CPU in [0,1], the part of the picture; None: anywhere."""


@dataclass(frozen=True)
class Subject:
    """Somebody or something, ready to take a word's place."""

    word: str
    occurrence: int
    """Which occurrence of the word in the prompt, from 1."""
    features: Tensor
    """(1,F) image feature on the CPU, mean over the given pictures; no row of somebody who is in none of them."""
    encoder: str
    """As `Adapter.encoder`."""
    terms: Terms = Terms()
    tokens: int = 0
    """Image tokens in the features; 0: they are one feature, not tokens."""

    def seen_as(self, features: Tensor) -> Subject:
        """The same with other features of the same adapter, perhaps more tokens."""
        return replace(self, features=features, tokens=self.tokens * features.shape[-1] // self.features.shape[-1])

    @property
    def absent(self) -> bool:
        """Whether this is nobody, whom prompts leave out."""
        return not len(self.features)
