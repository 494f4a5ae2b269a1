"""Trains the decoder of MoA Mini's autoencoder: from the linear latents to pictures, better than linearly.

The loss is absolute error, squared error (it leads while colours are far off) and the absolute error of horizontal and
vertical differences, so that drawn lines stay sharp. Noise on the latents, up to a quarter of their own spread, makes
the decoder forgive what the U-Net gets slightly wrong. Crops first, whole pictures for the last fifth: convolutions
learn the same from a quarter of the pixels. The encoder needs no training (see `head_start.py`).
"""

import argparse

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ...nodes.mini import MiniLatent, build_autoencoder
from .dataset import SIZE, load
from .faces import WEIGHTS, WORK
from .head_start import set_encoder, start_decoder
from .latents import PATCH, to_pictures
from .session import DEVICE, Session, export

PEAK_RATE = 1e-3
NOISE = 0.16
GRID = SIZE // PATCH


def new_autoencoder() -> nn.Module:
    """The host's tiny autoencoder with its encoder done and its decoder ready to be trained, channels last."""
    model = build_autoencoder().requires_grad_(False)
    set_encoder(model.taesd_encoder)
    start_decoder(model.taesd_decoder.requires_grad_(True))
    return model.to(DEVICE, memory_format=torch.channels_last)


def _batch(images: np.ndarray, latents: np.ndarray, whole: bool) -> tuple[Tensor, Tensor]:
    """Matching windows: latents `[B, 32, n, n]` of the autoencoder's side, pictures `[B, 3, 8n, 8n]`."""
    count, size = (2, GRID) if whole else (4, GRID // 2)
    chosen = torch.randint(len(images), (count,)).tolist()
    corners = torch.randint(GRID - size + 1, (count, 2)).tolist()
    windows = [(i, slice(y, y + size), slice(x, x + size)) for i, (y, x) in zip(chosen, corners, strict=True)]
    pixels = [(i, *(slice(s.start * PATCH, s.stop * PATCH) for s in area)) for i, *area in windows]
    inputs = np.stack([latents[i, :, y, x] for i, y, x in windows]).astype(np.float32) / MiniLatent.scale_factor
    pictures = to_pictures(np.stack([images[i, y, x] for i, y, x in pixels]))
    return torch.from_numpy(inputs).to(DEVICE), pictures.to(DEVICE)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def loss(decoder: nn.Module, latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The training loss and, of it, the absolute error; `pictures` `[B, 3, H, W]` in 0 to 1."""
    noise = NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device) * torch.randn_like(latents)
    inputs = (latents + noise).contiguous(memory_format=torch.channels_last)
    drawn = decoder(inputs).float()
    error = functional.l1_loss(drawn, pictures)
    pairs = zip(_differences(drawn), _differences(pictures), strict=True)
    sharpness = sum(functional.l1_loss(a, b) for a, b in pairs)
    return error + 4 * functional.mse_loss(drawn, pictures) + sharpness, error.detach()


@torch.no_grad()
def reconstruction_sheet(model: nn.Module) -> float:
    """Write `.mini/vae_sheet.png` (test pictures above their reconstructions) and give the PSNR over 32 of them."""
    images = load("test").images[:32]
    with torch.autocast(DEVICE.type, torch.bfloat16):
        drawn = model.taesd_decoder(model.taesd_encoder(to_pictures(images).to(DEVICE))).float().cpu()
    pictures = (drawn.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    rows = [np.concatenate(list(x[i : i + 8]), axis=1) for i in (0, 8) for x in (images, pictures)]
    Image.fromarray(np.concatenate(rows)).save(WORK / "vae_sheet.png")
    error = ((images.astype(np.float64) - pictures) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / error)).mean())


def train(minutes: float, shipped: bool) -> nn.Module:
    """Train, or go on training, for so many minutes altogether, exporting on the way."""
    torch.manual_seed(0)
    model = new_autoencoder()
    if shipped:
        model.load_state_dict(load_file(WEIGHTS / "vae.safetensors"))
    decoder = model.taesd_decoder
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    session = Session(WORK, "vae", minutes, model=model, optimiser=optimiser)
    images, latents = load("train").images, np.load(WORK / "train_latents.npy", mmap_mode="r")
    while session.progress < 1:
        optimiser.param_groups[0]["lr"] = session.rate(PEAK_RATE)
        inputs, pictures = _batch(images, latents, whole=session.progress > 0.8)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            total, error = loss(decoder, inputs, pictures)
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
    """Write `weights/mini/vae.safetensors`, in the layout that the host's VAE loader knows."""
    metadata = {"format": "moa-mini", "license": "GPL-3.0-or-later", "steps": str(step)}
    export(model.state_dict(), WEIGHTS / "vae.safetensors", metadata)


def main(argv: list[str]) -> None:
    """Train for `--minutes`, resuming what `.mini/vae.pt` holds, and export."""
    parser = argparse.ArgumentParser(prog="mini.vae", description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--shipped", action="store_true", help="begin with the weights that are shipped")
    options = parser.parse_args(argv)
    model = train(options.minutes, options.shipped)
    print("psnr", reconstruction_sheet(model), flush=True)
