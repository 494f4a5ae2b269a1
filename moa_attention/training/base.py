"""What the trainer needs to know of a base model; the host's bridge provides it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..layer import Observe

Record = Callable[[Tensor, Tensor], Observe]
"""`(sigma (), images (R,)) -> observe`: asked once per U-Net call."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    latents: Tensor
    """(B,C,h,w) clean latents, in the base model's own scale."""
    context: Tensor
    """(B,M,T) text embedding of the captions."""
    slots: Tensor
    """(B,M) int64, 0 for an ordinary token, s for subject s; −1 anywhere: a personalised row without subjects."""
    references: Tensor
    """(B,S,3,side,side) reference pictures in [0,1], or (B,S,F) image features made beforehand."""
    masks: Tensor
    """(B,S,h,w) in [0,1], where each subject is; empty slots are zero."""
    pooled: Tensor | None = None
    """(B,P) pooled text embedding, for bases that want one (SDXL)."""


class Base(Protocol):
    """A frozen base model with an adapter attached to it."""

    def sigma_at(self, share: Tensor) -> Tensor:
        """Noise levels at shares of the way from the first timestep to the last (noisiest), in [0,1): (B,) -> (B,)."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """(B,C,h,w) (B,C,h,w) (B,) -> noisy latents (B,C,h,w)."""
        ...

    def error_weight(self, sigma: Tensor) -> Tensor:
        """By what an error of the denoised latents counts as an error of what the network predicts (noise or v): (B,) -> (B,)."""
        ...

    def denoise(self, noisy: Tensor, sigma: Tensor, batch: Batch, features: Tensor, record: Record) -> Tensor:
        """One call of the U-Net with the subjects of the batch: features (B,S,F) -> denoised latents (B,C,h,w)."""
        ...
