"""Trains MoA Mini's autoencoder, then turns the data set into latents.

The loss is absolute error, squared error (it leads while colours are far off), the absolute error of horizontal and
vertical differences (so that drawn lines stay sharp), a pull of the latents towards zero, and noise on them (so that
latents which are nearly right decode to pictures that are nearly right). Crops first, whole pictures for the last
fifth: convolutions learn the same from a quarter of the pixels.
"""

import argparse

import comfy.utils
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ...nodes.mini import build_autoencoder
from .dataset import COUNTS, SIZE, load
from .faces import ROOT, WORK
from .head_start import give_head_start
from .session import Session, export

WEIGHTS = ROOT / "weights" / "mini"
PEAK_RATE = 1e-3
PULL = 1e-3
NOISE = 0.06
DECODER_ALONE = 0.25  # share of the time in which the encoder stays what its head start made it


def new_autoencoder(images: np.ndarray) -> nn.Module:
    """Weights to start from; see `head_start`."""
    model = build_autoencoder()
    give_head_start(model, images)
    model.vae_scale.requires_grad_(False)
    model.vae_shift.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


def to_tensor(images: np.ndarray) -> Tensor:
    """`[B, H, W, 3]` uint8 to `[B, 3, H, W]` in 0 to 1, channels last in memory."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255


def _batch(images: np.ndarray, whole: bool) -> Tensor:
    count, size = (2, SIZE) if whole else (4, SIZE // 2)
    chosen = torch.randint(len(images), (count,)).tolist()
    corners = torch.randint(SIZE - size + 1, (count, 2)).tolist()
    crops = [images[i, y : y + size, x : x + size] for i, (y, x) in zip(chosen, corners, strict=True)]
    return to_tensor(np.stack(crops))


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def loss(model: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The training loss and, of it, the absolute error; `pictures` `[B, 3, H, W]` in 0 to 1."""
    latents = model.taesd_encoder(pictures)
    drawn = model.taesd_decoder(latents + NOISE * torch.randn_like(latents)).float()
    error = functional.l1_loss(drawn, pictures)
    pairs = zip(_differences(drawn), _differences(pictures), strict=True)
    sharpness = sum(functional.l1_loss(a, b) for a, b in pairs)
    total = error + 4 * functional.mse_loss(drawn, pictures) + sharpness + PULL * latents.float().square().mean()
    return total, error.detach()


@torch.no_grad()
def encode(model: nn.Module, images: np.ndarray) -> Tensor:
    """Latents `[B, 16, 16, 16]`, unscaled, of uint8 pictures."""
    with torch.autocast("cpu", torch.bfloat16):
        return model.taesd_encoder(to_tensor(images)).float()


@torch.no_grad()
def decode(model: nn.Module, latents: Tensor) -> np.ndarray:
    """`[B, 128, 128, 3]` uint8 of unscaled latents."""
    with torch.autocast("cpu", torch.bfloat16):
        pictures = model.taesd_decoder(latents).float()
    return (pictures * 255).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()


def reconstruction_sheet(model: nn.Module) -> float:
    """Write `.mini/vae_sheet.png` (test pictures above their reconstructions) and give the PSNR over 32 of them."""
    images = load("test").images[:32]
    drawn = decode(model, encode(model, images))
    rows = [np.concatenate(list(x[i : i + 8]), axis=1) for i in (0, 8) for x in (images, drawn)]
    Image.fromarray(np.concatenate(rows)).save(WORK / "vae_sheet.png")
    error = ((images.astype(np.float64) - drawn) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / error)).mean())


def train(minutes: float) -> nn.Module:
    """Train, or go on training, for so many minutes altogether."""
    torch.manual_seed(0)
    images = load("train").images
    model = new_autoencoder(images[:1000])
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    session = Session(WORK, "vae", minutes, model=model, optimiser=optimiser)
    while session.progress < 1:
        model.taesd_encoder.requires_grad_(session.progress > DECODER_ALONE)
        optimiser.param_groups[0]["lr"] = session.rate(PEAK_RATE)
        with torch.autocast("cpu", torch.bfloat16):
            total, error = loss(model, _batch(images, whole=session.progress > 0.8))
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        session.step += 1
        if session.step % 20 == 0:
            session.log(loss=round(total.item(), 5), error=round(error.item(), 5))
        if session.due(60):
            session.save()
            session.log(psnr=round(reconstruction_sheet(model), 2))
    session.save()
    return model


def write_latents(model: nn.Module) -> float:
    """Encode every split into `.mini/<split>_latents.npy` (`[N, 16, 16, 16]` fp16, unit variance); gives the scale."""
    scale = 1.0
    for split, count in COUNTS.items():
        images = load(split).images[:count]
        latents = torch.cat([encode(model, images[i : i + 25]) for i in range(0, count, 25)])
        if split == "train":
            scale = 1 / latents.std().item()
        np.save(WORK / f"{split}_latents.npy", (latents * scale).half().numpy())
        print(split, tuple(latents.shape), "scale", scale, flush=True)
    return scale


def load_autoencoder() -> tuple[nn.Module, float]:
    """The exported autoencoder in fp32 and the factor that brings its latents to unit variance."""
    weights, metadata = comfy.utils.load_torch_file(str(WEIGHTS / "vae.safetensors"), return_metadata=True)
    model = build_autoencoder()
    model.load_state_dict(weights)
    return model.to(memory_format=torch.channels_last).eval(), float(metadata["latent_scale"])


def main(argv: list[str]) -> None:
    """Train, export to `weights/mini/vae.safetensors`, encode the data set with what was exported."""
    parser = argparse.ArgumentParser(prog="mini.vae", description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    options = parser.parse_args(argv)
    torch.set_num_threads(2)
    metadata = {"format": "moa-mini", "license": "GPL-3.0-or-later"}
    model = train(options.minutes).eval()
    print("psnr", reconstruction_sheet(model), flush=True)
    export(model.state_dict(), WEIGHTS / "vae.safetensors", {**metadata, "latent_scale": "1.0"})
    model, _ = load_autoencoder()
    scale = write_latents(model)
    export(model.state_dict(), WEIGHTS / "vae.safetensors", {**metadata, "latent_scale": repr(scale)})
