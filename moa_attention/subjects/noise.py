"""Noise over a picture, for image prompts that say what a result must not resemble. The kinds are those of IPAdapter_plus."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

NoiseKind = Literal["fade", "dissolve", "gaussian"]
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)
SEEDS = 1_000_000_007


def add_noise(pictures: Tensor, kind: NoiseKind, strength: float) -> Tensor:
    """(K,H,W,3) in [0,1] -> the same. The seed is the sum of all values, so that the same pictures get the same noise.

    Args:
        kind: "fade", a mixture with uniform noise; "dissolve", single values replaced by it; "gaussian", normal noise added.
        strength: 0..1; at 0 the pictures remain as they are.
    """
    generator = torch.Generator().manual_seed(int(pictures.sum().item()) % SEEDS)

    def uniform() -> Tensor:
        return torch.rand(pictures.shape, generator=generator)

    if kind == "fade":
        noisy = pictures * (1 - strength) + uniform() * strength
    elif kind == "dissolve":
        chosen = (uniform() < strength).float()
        noisy = pictures * (1 - chosen) + uniform() * chosen
    else:
        noisy = pictures + torch.randn(pictures.shape, generator=generator) * strength
    return noisy.clamp(0, 1)
