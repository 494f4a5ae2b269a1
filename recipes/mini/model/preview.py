"""What a base model paints so far: a sheet of samples from a folder of weights or a training state."""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ....moa_attention.training.precision import mixed_precision
from ..data.dataset import SIZE
from ..data.faces import WEIGHTS, WORK
from ..data.scenes import SCENES
from .diffusion import sample
from .session import DEVICE
from .text import tokenise
from .unet import decode_latents, export_model, load_decoder, load_model, steps_of

PEOPLE = ("a man", "a woman", "a man and a woman")


def sample_sheet(model: nn.ModuleDict, alpha_bar: Tensor, path: Path) -> None:
    """Write a picture: a row for each of `PEOPLE`, a column for each scene."""
    tokens = tokenise([f"{who} {place}" for who in PEOPLE for place in SCENES])
    with mixed_precision(DEVICE):
        latents = sample(model.eval(), alpha_bar, tokens).float()
    pictures = (decode_latents(load_decoder(), latents) * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    rows = pictures.reshape(len(PEOPLE), len(SCENES), SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(rows.reshape(len(PEOPLE) * SIZE, len(SCENES) * SIZE, 3)).save(path)


def main(argv: list[str]) -> None:
    """Paint the sheet; with `--export`, also write a state's averaged weights."""
    parser = argparse.ArgumentParser(prog="mini.model.preview", description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", default=WEIGHTS, help="folder of weights, or training state")
    parser.add_argument("--sheet", type=Path, default=WORK / "base_sheet.png")
    parser.add_argument("--export", type=Path, help="folder for a state's weights")
    options = parser.parse_args(argv)
    model, alpha_bar = load_model(options.path)
    if options.export:
        export_model(model, options.export, steps_of(options.path))
    sample_sheet(model, alpha_bar, options.sheet)
