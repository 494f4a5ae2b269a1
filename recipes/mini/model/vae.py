"""Trains the decoder of MoA Mini's autoencoder, from the linear latents to pictures.

The loss is absolute error, squared error (dominant while colours are far off) and the absolute error of horizontal and
vertical differences, which keeps drawn lines sharp. Noise on the latents, up to a quarter of their own deviation, makes the
decoder robust to the U-Net's errors. With `--base` it also learns from these errors themselves: half of the latents are what
that base model predicts from a little noise. Training is on crops, and on whole pictures for the last fifth: convolutions
learn the same from a quarter of the pixels. The encoder needs no training (see `head_start.py`).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from comfy.taesd.taesd import TAESD
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ....moa_attention.pictures import grid, to_image
from ....moa_attention.training.precision import mixed_precision
from ....nodes.host.model.mini import MiniLatent, build_autoencoder
from ..data.dataset import SIZE, load
from ..data.faces import WEIGHTS, WORK
from ..data.latents import PATCH, to_pictures
from .base import Pictures
from .diffusion import clean_from, noise_levels, noisy_and_velocity, predict
from .head_start import set_encoder, start_decoder
from .session import DEVICE, Session, export
from .text import encode_text
from .unet import load_model

PEAK_RATE = 1e-3
NOISE = 0.16
GRID = SIZE // PATCH
LEVELS = (0.1, 0.8)
"""Noise from which the base model predicts."""


def new_autoencoder() -> TAESD:
    """The host's tiny autoencoder with its final encoder and the initial decoder, channels last."""
    model = build_autoencoder().requires_grad_(False)
    set_encoder(model.taesd_encoder)
    start_decoder(model.taesd_decoder.requires_grad_(True))
    nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model.to(DEVICE)


class Latents:
    """The latents of the training pictures.

    Args: base: weights or state of a base model, whose predictions take the place of every other picture's latents.
    """

    def __init__(self, base: Path | None) -> None:
        self.pictures = Pictures()
        self.base = load_model(base) if base else None

    def __call__(self, chosen: np.ndarray) -> Tensor:
        """Of the pictures `chosen` `[B]`, as the U-Net has them, `[B, 32, 16, 16]`."""
        clean, tokens, _ = self.pictures.batch(chosen)
        if self.base:
            clean[::2] = self.predict(clean[::2], tokens[::2])
        return clean

    @torch.no_grad()
    def predict(self, clean: Tensor, tokens: Tensor) -> Tensor:
        """What the base model takes for the clean latents, from noise of a random level."""
        assert self.base is not None
        model, alpha_bar = self.base
        wanted = torch.empty(len(clean), device=DEVICE).uniform_(*LEVELS)
        time = torch.searchsorted(noise_levels(alpha_bar), wanted)
        noisy, _ = noisy_and_velocity(alpha_bar, time, clean, torch.randn_like(clean))
        velocity = predict(model["unet"], noisy, time.float(), encode_text(model["text"], tokens))
        return clean_from(alpha_bar, time, noisy, velocity)


def draw_batch(images: np.ndarray, latents: Latents, whole: bool) -> tuple[Tensor, Tensor]:
    """Random windows: latents `[B, 32, n, n]` at the autoencoder's scale, pictures `[B, 3, 8n, 8n]`."""
    count, size = (2, GRID) if whole else (4, GRID // 2)
    chosen = torch.randint(len(images), (count,)).numpy()
    corners = torch.randint(GRID - size + 1, (count, 2)).tolist()
    windows = [(slice(y, y + size), slice(x, x + size)) for y, x in corners]
    pixels = [[slice(s.start * PATCH, s.stop * PATCH) for s in window] for window in windows]
    inputs = torch.stack([each[:, y, x] for each, (y, x) in zip(latents(chosen), windows, strict=True)])
    pictures = to_pictures(np.stack([images[i, y, x] for i, (y, x) in zip(chosen, pixels, strict=True)]))
    return inputs / MiniLatent.scale_factor, pictures.to(DEVICE)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def reconstruction_loss(decoder: nn.Module, latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The training loss and its absolute error alone; `pictures` `[B, 3, H, W]` in 0 to 1."""
    noise = NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device) * torch.randn_like(latents)
    inputs = (latents + noise).contiguous(memory_format=torch.channels_last)
    decoded = decoder(inputs).float()
    error = functional.l1_loss(decoded, pictures)
    pairs = zip(_differences(decoded), _differences(pictures), strict=True)
    sharpness = sum(functional.l1_loss(a, b) for a, b in pairs)
    return error + 4 * functional.mse_loss(decoded, pictures) + sharpness, error.detach()


@torch.no_grad()
def reconstruction_sheet(model: TAESD) -> float:
    """Write `.mini/vae_sheet.png`, test pictures above their reconstructions; returns the PSNR over 32 of them."""
    images = load("test").images[:32]
    with mixed_precision(DEVICE):
        decoded = model.taesd_decoder(model.taesd_encoder(to_pictures(images).to(DEVICE))).float().cpu()
    pictures = (decoded.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    rows = torch.from_numpy(np.stack([x[i : i + 8] for i in (0, 8) for x in (images, pictures)]))
    to_image(grid(rows / 255)).save(WORK / "vae_sheet.png")
    error = ((images.astype(np.float64) - pictures) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / error)).mean())


def train_decoder(minutes: float, shipped: bool, base: Path | None) -> TAESD:
    """Train, or resume training, for so many minutes in total, exporting on the way."""
    torch.manual_seed(0)
    model = new_autoencoder()
    if shipped:
        model.load_state_dict(load_file(WEIGHTS / "vae.safetensors"))
    decoder = model.taesd_decoder
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    session = Session(WORK, "vae", minutes, model=model, optimiser=optimiser)
    images, latents = load("train").images, Latents(base)
    while session.progress < 1:
        optimiser.param_groups[0]["lr"] = session.rate(PEAK_RATE)
        inputs, pictures = draw_batch(images, latents, whole=session.progress > 0.8)
        with mixed_precision(DEVICE):
            total, error = reconstruction_loss(decoder, inputs, pictures)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        session.step += 1
        if session.step % 50 == 0:
            session.log(loss=round(total.item(), 5), error=round(error.item(), 5))
        if session.due(60):
            session.save()
            session.log(psnr=round(reconstruction_sheet(model), 2))
            export_autoencoder(model, session.step)
    session.save()
    export_autoencoder(model, session.step)
    return model


def export_autoencoder(model: nn.Module, step: int) -> None:
    """Write `weights/mini/vae.safetensors`, in the layout of the host's VAE loader."""
    export(model.state_dict(), WEIGHTS / "vae.safetensors", step)


def main(argv: list[str]) -> None:
    """Train for `--minutes`, resuming from `.mini/vae.pt`, and export."""
    parser = argparse.ArgumentParser(prog="mini.model.vae", description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--shipped", action="store_true", help="start from the shipped weights")
    parser.add_argument(
        "--base", type=Path, help="folder of weights or training state of a base model, to learn from its errors"
    )
    options = parser.parse_args(argv)
    model = train_decoder(options.minutes, options.shipped, options.base)
    print("psnr", reconstruction_sheet(model), flush=True)
