"""Trains MoA Mini's style LoRA: pictures as an old sepia print.

Only the queries, keys and values of the attention change. *Apply MoA* has those of a subject of its own, so the style reaches the
prior and not the personalised branch. The training pictures are the base's, in other colours.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from ..data.dataset import load
from ..data.faces import WEIGHTS, WORK
from ..data.latents import encode, to_pictures
from .base import Pictures
from .diffusion import predict, velocity_error
from .low_rank import WeightChanges, fit
from .session import DEVICE, export
from .text import encode_text
from .unet import load_model

FILE = WEIGHTS / "loras" / "moa_mini_sepia.safetensors"
MINUTES = 8
BATCH = 24
RANK = 16
CHANGED = ("to_q", "to_k", "to_v")
LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
DARK, LIGHT = torch.tensor([40.0, 20, 5]) / 255, torch.tensor([255.0, 235, 190]) / 255
"""Ink and paper."""
LATENTS = WORK / "style_latents.npy"


def recolour(pictures: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> the same in shades of one ink."""
    grey = (pictures * LUMINANCE.view(3, 1, 1)).sum(1, keepdim=True)
    return DARK.view(3, 1, 1) + grey * (LIGHT - DARK).view(3, 1, 1)


def write_latents() -> None:
    """Write `.mini/style_latents.npy`, (N,32,16,16) float16."""
    images = load("train").images
    chunks = [encode(recolour(to_pictures(images[i : i + 250]))).half() for i in range(0, len(images), 250)]
    np.save(LATENTS, torch.cat(chunks).numpy())


class StyleTraining(nn.Module):
    """What is trained; called, it gives the loss of a fresh batch."""

    def __init__(self, model: nn.ModuleDict, alpha_bar: Tensor, data: Pictures) -> None:
        super().__init__()
        self.base, self.alpha_bar, self.data = [model.eval().requires_grad_(False)], alpha_bar, data
        layers = [name for name, _ in model["unet"].named_modules() if name.endswith(CHANGED)]
        self.change = WeightChanges(model["unet"], layers, RANK).to(DEVICE)

    def forward(self) -> Tensor:
        clean, tokens, people = self.data.draw(BATCH)
        [base] = self.base
        with torch.no_grad():
            context = encode_text(base["text"], tokens)
        unet = self.change.changed()

        def velocity(noisy: Tensor, time: Tensor) -> Tensor:
            return predict(unet, noisy, time, context)

        time = torch.randint(len(self.alpha_bar), (BATCH,)).to(DEVICE)
        return velocity_error(velocity, self.alpha_bar, time, clean, people)

    def tensors(self) -> dict[str, Tensor]:
        """In the names of the host's LoRA loader."""
        named = {}
        for name, (up, down) in self.change.factors().items():
            named[f"diffusion_model.{name}.lora_up.weight"] = up
            named[f"diffusion_model.{name}.lora_down.weight"] = down
        return named


def main(argv: list[str]) -> None:
    """Train for `--minutes`, resuming from `.mini/style.pt`, and export to `weights/mini`."""
    parser = argparse.ArgumentParser(prog="mini.model.style", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args(argv).minutes
    if not LATENTS.is_file():
        write_latents()
    torch.manual_seed(0)
    training = StyleTraining(*load_model(WEIGHTS), Pictures(LATENTS))
    steps = fit("style", minutes, training)
    export(training.tensors(), FILE, steps)
