"""MoA Mini's latent space: the strongest principal components of 8 × 8 patches of pictures.

They ship with the recipe (`components.safetensors`), because the autoencoder and every base model are made for them; `--fit`
computes others. With 32 components the projection keeps 25.5 dB, more than an autoencoder trained for minutes. It needs no
training, and the base can be trained before the decoder. The decoder (`vae.py`) learns to reconstruct better than linearly
from the same latents.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from .dataset import COUNTS, load
from .faces import WORK

PATCH = 8
CHANNELS = 32
SAMPLE = 2000
"""Number of pictures from which the components are computed."""
FILE = Path(__file__).with_name("components.safetensors")


def patches(pictures: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> (B,h,w,192)."""
    return rearrange(pictures, "b rgb (h y) (w x) -> b h w (rgb y x)", y=PATCH, x=PATCH)


def unpatch(values: Tensor) -> Tensor:
    """(B,h,w,192) -> (B,3,H,W)."""
    return rearrange(values, "b h w (rgb y x) -> b rgb (h y) (w x)", y=PATCH, x=PATCH)


def to_pictures(images: np.ndarray) -> Tensor:
    """(B,H,W,3) uint8 -> (B,3,H,W) in [0,1]."""
    return torch.from_numpy(np.array(images)).movedim(-1, 1).float() / 255


def fit_projection() -> dict[str, Tensor]:
    """The projection: `mean` (192,), `basis` (192,32) orthonormal, `gain` (32,) bringing components to latents.

    Each component is divided by the root of its standard deviation: whitened half-way, so that neither the few strong
    components nor the many weak ones dominate the diffusion loss. Over all channels the variance is one.
    """
    values = patches(to_pictures(load("train").images[:SAMPLE])).flatten(0, 2)
    mean = values.mean(0)
    variance, vectors = torch.linalg.eigh((values - mean).T @ (values - mean) / len(values))
    deviation, basis = variance.flip(0)[:CHANNELS].sqrt(), vectors.flip(1)[:, :CHANNELS].contiguous()
    gain = deviation.rsqrt() / deviation.mean().sqrt()
    return {"mean": mean, "basis": basis, "gain": gain}


@cache
def projection() -> dict[str, Tensor]:
    """The projection that ships with the recipe."""
    return load_file(FILE)


def encode(pictures: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> latents (B,32,H/8,W/8)."""
    p = projection()
    return (((patches(pictures) - p["mean"]) @ p["basis"]) * p["gain"]).movedim(-1, 1)


def decode(latents: Tensor) -> Tensor:
    """The linear inverse: (B,32,h,w) -> (B,3,8h,8w) in [0,1]."""
    p = projection()
    return unpatch((latents.movedim(1, -1) / p["gain"]) @ p["basis"].T + p["mean"]).clamp(0, 1)


def preview_factors() -> tuple[Tensor, Tensor]:
    """Latents as one pixel each, for previews: factors (32,3) and bias (3,), to values in -1..1."""
    p = projection()
    colour = p["basis"].T.unflatten(1, (3, PATCH * PATCH)).mean(2) / p["gain"][:, None]
    return 2 * colour, 2 * p["mean"].unflatten(0, (3, PATCH * PATCH)).mean(1) - 1


def main(argv: list[str]) -> None:
    """Write `.mini/<split>_latents.npy`, (N,32,16,16) float16; with `--fit` compute the components first."""
    if "--fit" in argv:
        save_file(fit_projection(), FILE)
    for split in COUNTS:
        images = load(split).images
        chunks = [encode(to_pictures(images[i : i + 250])).half() for i in range(0, len(images), 250)]
        latents = torch.cat(chunks)
        np.save(WORK / f"{split}_latents.npy", latents.numpy())
        error = (decode(latents[:100].float()) - to_pictures(images[:100])).square().mean((1, 2, 3))
        deviation, psnr = latents.float().std().item(), (-10 * error.log10()).mean().item()
        print(split, tuple(latents.shape), "std", deviation, "psnr", psnr)
