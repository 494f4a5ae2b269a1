"""Noise over a picture, for image prompts that say what a result must not resemble. The kinds are those of IPAdapter_plus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

NoiseKind = Literal["fade", "dissolve", "gaussian", "shuffle"]
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)
SEEDS = 1_000_000_007
BLUR = 5
"""Width of the blur in pixels of a picture of 224 × 224."""
WARP, SMOOTHEST, GRAIN = 75.0, 3.5, 0.75
"""Of "shuffle": the largest shift in pixels, the standard deviation of the shifts' blur at strength 0, and the noise at strength 1."""


def add_noise(pictures: Tensor, kind: NoiseKind, strength: float, blurred: bool = False) -> Tensor:
    """(K,H,W,3) in [0,1] -> the same. The seed is the sum of all values, so that the same pictures get the same noise.

    Args:
        kind: "fade", a mixture with uniform noise; "dissolve", single values replaced by it; "gaussian", normal noise added;
            "shuffle", the picture upside down and warped, with normal noise.
        strength: 0..1; at 0 the pictures remain as they are, but for "shuffle".
        blurred: whether the result is blurred.
    """
    generator = torch.Generator().manual_seed(int(pictures.sum().item()) % SEEDS)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape or pictures.shape, generator=generator)

    if kind == "fade":
        noisy = pictures * (1 - strength) + uniform() * strength
    elif kind == "dissolve":
        chosen = (uniform() < strength).float()
        noisy = pictures * (1 - chosen) + uniform() * chosen
    elif kind == "gaussian":
        noisy = pictures + torch.randn(pictures.shape, generator=generator) * strength
    else:
        turned = warped(pictures.movedim(-1, 1), (1 - strength) * SMOOTHEST, uniform).flip(-1, -2).movedim(1, -1)
        uniform(2)  # there two numbers decide whether to turn
        noise = torch.empty_like(turned).normal_(generator=generator) * (GRAIN * strength)
        noisy = turned * (1 - noise) + noise
    noisy = noisy.clamp(0, 1)
    return blur(noisy.movedim(-1, 1), BLUR, 0.15 * BLUR + 0.35).movedim(1, -1) if blurred else noisy


def warped(pictures: Tensor, smoothness: float, uniform: Callable[..., Tensor]) -> Tensor:
    """Pictures (K,3,H,W) whose pixels are shifted at random, black where nothing comes from inside.

    Args: smoothness: standard deviation of the shifts' blur in pixels; uniform: makes noise of a shape.
    """
    shifts, sizes = [], (pictures.shape[-1], pictures.shape[-2])
    for size in sizes:
        shift = uniform(1, 1, *pictures.shape[-2:]) * 2 - 1
        if smoothness:
            shift = blur(shift, int(8 * smoothness + 1) | 1, smoothness)
        shifts.append(shift * WARP / size)
    x, y = (torch.linspace((1 - size) / size, (size - 1) / size, size) for size in sizes)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = (torch.stack((columns, rows)) + torch.cat(shifts, dim=1)[0]).movedim(0, -1)
    inside = torch.cat((pictures, torch.ones_like(pictures[:, :1])), dim=1)
    moved = F.grid_sample(inside, grid.expand(len(pictures), -1, -1, -1), align_corners=False)
    return moved[:, :3] * moved[:, 3:]


def blur(pictures: Tensor, width: int, deviation: float) -> Tensor:
    """Pictures (K,C,H,W) blurred by a Gaussian of an odd width, mirrored at the borders."""
    limit = (width - 1) / (2 * 2**0.5)
    kernel = (torch.linspace(-limit, limit, width) / deviation).square().neg().softmax(dim=0)
    channels, reach = pictures.shape[1], width // 2
    padded = F.pad(pictures, (reach, reach, reach, reach), mode="reflect")
    along_rows = F.conv2d(padded, kernel.expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(along_rows, kernel.expand(channels, 1, 1, -1).mT, groups=channels)
