"""Whether the base is good enough to train an adapter on: its errors where people are, on validation pictures.

Prints, for a folder of weights or a training state: the mean squared velocity error where people are at a noise level of 0.83
(the bar is 0.35), and how near the decoded clean picture that it predicts at a level of 0.34 is to the true one, again where
people are, in dB (the bar is 26). The levels are those of t = 300 and t = 100 in the usual schedule. Every model sees the same
pictures and noise.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.dataset import SIZE, load
from ..data.faces import WEIGHTS, WORK
from ..data.latents import to_pictures
from ..model.diffusion import clean_from, noise_levels, noisy_and_velocity, predict
from ..model.session import DEVICE
from ..model.text import encode_text, tokenise
from ..model.unet import decode_latents, load_decoder, load_model

PICTURES, BATCH = 200, 50
VELOCITY_AT, PICTURE_AT = 0.83, 0.34
"""Noise levels."""


def people_in(masks: np.ndarray, side: int) -> Tensor:
    """Where people are, 0 to 1: masks `[B, 2, 32, 32]` uint8 -> `[B, 1, side, side]`."""
    people = torch.from_numpy(np.array(masks)).float().sum(1, keepdim=True).div(255).clamp(max=1)
    return F.interpolate(people, size=(side, side), mode="area" if side < people.shape[-1] else "bilinear")


@torch.no_grad()
def predict_at(
    base: tuple[nn.ModuleDict, Tensor], level: float, clean: Tensor, noise: Tensor, captions: list[str]
) -> tuple[Tensor, Tensor]:
    """The squared velocity error `[B, 1, h, w]` at a noise level, and the clean latents that the model predicts there."""
    model, alpha_bar = base
    time = (noise_levels(alpha_bar) - level).abs().argmin().expand(len(clean))
    noisy, velocity = noisy_and_velocity(alpha_bar, time, clean, noise)
    context = encode_text(model["text"], tokenise(captions).to(DEVICE))
    predicted = predict(model["unet"], noisy, time.float(), context)
    return (predicted - velocity).square().mean(1, keepdim=True).cpu(), clean_from(alpha_bar, time, noisy, predicted)


def gate(path: Path) -> dict[str, float]:
    """`velocity_error` (mean over everybody's area) and `picture_db` (mean over pictures) of the model in `path`."""
    base, vae = load_model(path), load_decoder()
    base[0].eval()
    shard, latents = load("validation"), np.load(WORK / "validation_latents.npy")
    generator = torch.Generator().manual_seed(0)
    errors, areas, decibels = [], [], []
    for start in range(0, PICTURES, BATCH):
        rows = slice(start, start + BATCH)
        clean, captions = torch.from_numpy(latents[rows]).float(), shard.records["caption"][rows].tolist()
        noise = torch.randn(clean.shape, generator=generator).to(DEVICE)
        error, _ = predict_at(base, VELOCITY_AT, clean.to(DEVICE), noise, captions)
        people = people_in(shard.masks[rows], clean.shape[-1])
        errors.append((people * error).sum())
        areas.append(people.sum())

        _, predicted = predict_at(base, PICTURE_AT, clean.to(DEVICE), noise, captions)
        error = (decode_latents(vae, predicted) - to_pictures(shard.images[rows])).square().mean(1, keepdim=True)
        people = people_in(shard.masks[rows], SIZE)
        decibels.append(-10 * ((people * error).sum((1, 2, 3)) / people.sum((1, 2, 3))).log10())
    velocity_error = torch.stack(errors).sum() / torch.stack(areas).sum()
    return {"velocity_error": velocity_error.item(), "picture_db": torch.cat(decibels).mean().item()}


def main(argv: list[str]) -> None:
    """Print both numbers."""
    parser = argparse.ArgumentParser(prog="mini.judging.gate", description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", default=WEIGHTS, help="folder of weights, or training state")
    numbers = gate(parser.parse_args(argv).path)
    print(f"inside people: velocity error {numbers['velocity_error']:.4f} at noise {VELOCITY_AT}", end=", ")
    print(f"PSNR {numbers['picture_db']:.2f} dB at noise {PICTURE_AT}")
