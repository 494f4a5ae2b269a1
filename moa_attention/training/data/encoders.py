"""The frozen models in front of the U-Net, as the cache uses them; `nodes/host/training/encoders.py` implements them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class EncodedCaption(NamedTuple):
    """A caption, encoded for the base model."""

    context: Tensor
    """(M,T)"""
    pooled: Tensor
    """(P,), empty when the base model uses none."""
    positions: list[int]
    """Indices in the context of the subjects' tokens."""


class Encoders(Protocol):
    """VAE, text encoder and, unless the adapter has its own, image encoder. Their outputs require no gradient."""

    fingerprint: str
    """Differs whenever an output of these models would differ."""
    scale: int
    """Pixels of a picture per latent pixel, along one side."""
    side: int
    """Of the square reference pictures, in pixels."""
    batch: int
    """Pictures that are encoded together."""

    def latents(self, images: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,C,h,w), in the U-Net's own scale."""
        ...

    def text(self, caption: str, ends: Sequence[int]) -> EncodedCaption:
        """Encode a caption and find the tokens that end just before the given offsets.

        Raises: BadPicture when such a token lies beyond the text encoder's context.
        """
        ...

    def features(self, references: Tensor) -> Tensor:
        """(N,3,side,side) in [0,1] -> (N,F)."""
        ...
