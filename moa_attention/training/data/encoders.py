"""The frozen models in front of the U-Net, as the cache needs them; the host's bridge provides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Text(NamedTuple):
    """A caption as the base model reads it."""

    context: Tensor
    """(M,T)"""
    pooled: Tensor
    """(P,), empty where the base model wants none."""
    places: list[int]
    """Indices in the context of the subjects' tokens."""


class Encoders(Protocol):
    """VAE, text encoder and, unless the adapter brings its own, image encoder."""

    fingerprint: str
    """Changes whenever anything these models give would change."""
    scale: int
    """Pixels of a picture per latent pixel, along one side."""
    side: int
    """Of the square reference pictures, in pixels."""

    def latents(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,C,h,w), in the U-Net's own scale."""
        ...

    def text(self, caption: str, ends: Sequence[int]) -> Text:
        """A caption, and the tokens that end just before the given offsets.

        Raises: BadPicture when such a token lies beyond the text encoder's reach.
        """
        ...

    def features(self, references: Tensor) -> Tensor:
        """(N,3,side,side) in [0,1] -> (N,F)."""
        ...
