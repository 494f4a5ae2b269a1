"""Trains MoA Mini's autoencoder, then turns the data set into latents.

Absolute error, the same error of horizontal and vertical differences (so that the drawn lines stay sharp) and a small
KL term (so that the latents are smooth enough to be generated). Crops first, whole pictures for the last fifth:
convolutions learn the same from a quarter of the pixels.
"""

import argparse

import comfy.utils
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from ...nodes.mini import build_autoencoder
from .dataset import COUNTS, SIZE, load
from .faces import ROOT, WORK
from .session import Session, export, initialise

WEIGHTS = ROOT / "weights" / "mini"
KL_WEIGHT = 3e-4
PEAK_RATE = 1.5e-3


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """`[B, H, W, 3]` uint8 to `[B, 3, H, W]` in -1 to 1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _batch(images: np.ndarray, whole: bool, rng: torch.Generator | None = None) -> torch.Tensor:
    count, size = (4, SIZE) if whole else (12, SIZE // 2)
    chosen = torch.randint(len(images), (count,), generator=rng).tolist()
    corners = torch.randint(SIZE - size + 1, (count, 2), generator=rng).tolist()
    crops = [images[i, y : y + size, x : x + size] for i, (y, x) in zip(chosen, corners, strict=True)]
    return to_tensor(np.stack(crops))


def _differences(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def loss(model: torch.nn.Module, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The training loss and, of it, the absolute error in picture units (0 to 1)."""
    moments = model.quant_conv(model.encoder(pictures)).float()
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
    drawn = model.decode(z).float()
    error = functional.l1_loss(drawn, pictures)
    pairs = zip(_differences(drawn), _differences(pictures), strict=True)
    sharpness = sum(functional.l1_loss(a, b) for a, b in pairs)
    return error + sharpness + KL_WEIGHT * kl, error.detach() / 2


@torch.no_grad()
def encode(model: torch.nn.Module, images: np.ndarray) -> torch.Tensor:
    """Latent means `[B, 16, 16, 16]`, unscaled, of uint8 pictures."""
    return model.quant_conv(model.encoder(to_tensor(images))).chunk(2, dim=1)[0]


@torch.no_grad()
def decode(model: torch.nn.Module, latents: torch.Tensor) -> np.ndarray:
    """`[B, 128, 128, 3]` uint8 of unscaled latents."""
    pictures = ((model.decode(latents) + 1) * 127.5).round().clamp(0, 255)
    return pictures.permute(0, 2, 3, 1).to(torch.uint8).numpy()


def reconstruction_sheet(model: torch.nn.Module) -> float:
    """Write `.mini/vae_sheet.png` (test pictures above their reconstructions) and give the PSNR over 64 of them."""
    images = load("test").images[:64]
    drawn = np.concatenate([decode(model, encode(model, images[i : i + 16])) for i in range(0, 64, 16)])
    rows = [np.concatenate(list(x[i : i + 8]), axis=1) for i in (0, 8) for x in (images, drawn)]
    Image.fromarray(np.concatenate(rows)).save(WORK / "vae_sheet.png")
    error = ((images.astype(np.float64) - drawn) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / error)).mean())


def train(minutes: float) -> torch.nn.Module:
    """Train, or go on training, for so many minutes altogether."""
    model = build_autoencoder()
    torch.manual_seed(0)
    initialise(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    session = Session(WORK, "vae", minutes, model=model, optimiser=optimiser)
    images = load("train").images
    while session.progress < 1:
        optimiser.param_groups[0]["lr"] = session.rate(PEAK_RATE)
        with torch.autocast("cpu", torch.bfloat16):
            total, error = loss(model, _batch(images, whole=session.progress > 0.8))
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        session.step += 1
        if session.step % 20 == 0:
            session.log(loss=round(total.item(), 5), error=round(error.item(), 5))
        if session.due(60):
            session.save()
            session.log(psnr=round(reconstruction_sheet(model), 2))
    session.save()
    return model


def write_latents(model: torch.nn.Module) -> float:
    """Encode every split into `.mini/<split>_latents.npy` (`[N, 16, 16, 16]` fp16, unit variance); gives the scale."""
    scale = 1.0
    for split in COUNTS:
        images = load(split).images
        latents = torch.cat([encode(model, images[i : i + 50]) for i in range(0, len(images), 50)])
        if split == "train":
            scale = 1 / latents.std().item()
        np.save(WORK / f"{split}_latents.npy", (latents * scale).half().numpy())
        print(split, tuple(latents.shape), "scale", scale, flush=True)
    return scale


def load_autoencoder() -> tuple[torch.nn.Module, float]:
    """The exported autoencoder in fp32 and the factor that brings its latents to unit variance."""
    weights, metadata = comfy.utils.load_torch_file(str(WEIGHTS / "vae.safetensors"), return_metadata=True)
    model = build_autoencoder()
    model.load_state_dict(weights)
    return model.float().eval(), float(metadata["latent_scale"])


def main(argv: list[str]) -> None:
    """Train, export to `weights/mini/vae.safetensors`, encode the data set with what was exported."""
    parser = argparse.ArgumentParser(prog="mini.vae", description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    options = parser.parse_args(argv)
    torch.set_num_threads(2)
    model = train(options.minutes).eval()
    print("psnr", reconstruction_sheet(model), flush=True)
    export(model.state_dict(), WEIGHTS / "vae.safetensors", {"latent_scale": "1.0"})
    model, _ = load_autoencoder()
    scale = write_latents(model)
    export(model.state_dict(), WEIGHTS / "vae.safetensors", {"latent_scale": repr(scale)})
