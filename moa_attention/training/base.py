"""The base model as the trainer uses it; `nodes/host/training/base.py` implements it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..method.layer import Observe

Record = Callable[[Tensor, Tensor], Observe]
"""`(sigma (), images (R,)) -> observe`: called once per U-Net call."""


@dataclass(frozen=True)
class Batch:
    """The examples of one micro-batch."""

    latents: Tensor
    """(B,C,h,w) clean latents, in the base model's own scale."""
    context: Tensor
    """(B,M,T) text embedding of the captions."""
    slots: Tensor
    """(B,M) int64, 0 for an ordinary token, s for subject s; −1 anywhere: a personalised row without subjects."""
    references: Tensor
    """(B,S,3,side,side) reference pictures in [0,1], or (B,S,F) image features computed beforehand."""
    masks: Tensor
    """(B,S,h,w) in [0,1], where each subject is; empty slots are zero."""
    pooled: Tensor | None = None
    """(B,P) pooled text embedding, for base models that use one (SDXL)."""
    weights: Tensor | None = None
    """(B,) factors of the examples' losses; None: 1."""


class Base(Protocol):
    """A frozen base model with an adapter attached to it."""

    def sigma_at(self, share: Tensor) -> Tensor:
        """Noise levels at fractions of the schedule, in [0,1), 1 being the noisiest timestep: (B,) -> (B,)."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """(B,C,h,w) (B,C,h,w) (B,) -> noisy latents (B,C,h,w)."""
        ...

    def error_weight(self, sigma: Tensor) -> Tensor:
        """Factor from an error of the denoised latents to one of the network's prediction (noise or v): (B,) -> (B,)."""
        ...

    def signal_to_noise(self, sigma: Tensor) -> Tensor:
        """Ratio of the variances of picture and noise in the noisy latents: (B,) -> (B,)."""
        ...

    def denoise(self, noisy: Tensor, sigma: Tensor, batch: Batch, features: Tensor, record: Record) -> Tensor:
        """One call of the U-Net with the subjects of the batch: features (B,S,F) -> denoised latents (B,C,h,w)."""
        ...

    def denoise_alone(self, noisy: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        """One call of the frozen U-Net without the adapter, on the same input and text, without gradient: -> (B,C,h,w)."""
        ...
