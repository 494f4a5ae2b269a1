"""Trains MoA Mini's ControlNet: white silhouettes on black show where people are.

It is a Control-LoRA, the smallest form that the host's *Load ControlNet Model* reads. The host copies the base's encoder; the file
has low-rank changes of its weights, the convolutions that read the hint, and those that lead to the base, which start as zero.
"""

import argparse
from itertools import pairwise

import torch
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from comfy.ops import disable_weight_init
from torch import Tensor, nn
from torch.nn import functional

from ....nodes.host.model.mini import HEAD, UNET_CONFIG
from ..data.dataset import SIZE
from ..data.faces import WEIGHTS
from .base import Pictures
from .diffusion import predict, velocity_error
from .low_rank import WeightChanges, fit
from .session import DEVICE, export, initialise
from .text import encode_text
from .unet import load_model

FILE = WEIGHTS / "controlnet" / "moa_mini_silhouettes.safetensors"
MINUTES = 45
BATCH = 16
RANK = 16
NARROW = (4, 4, 8, 8, 16, 16, 64)
"""Channels of the hint's convolutions in training; the host's have 16 to 256, and take longer than the U-Net."""
STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)
OWN = ("input_hint_block.", "zero_convs.", "middle_block_out.")
"""Parts that the base does not have."""


def narrow_hint_block(channels: int) -> TimestepEmbedSequential:
    """The host's convolutions of the hint with few channels, a tenth of the work; `channels` come out."""
    layers: list[nn.Module] = []
    for (before, after), stride in zip(pairwise((3, *NARROW, channels)), STRIDES, strict=True):
        layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.SiLU()]
    return TimestepEmbedSequential(*layers[:-1])


def widened(narrow: nn.Module, wide: nn.Module) -> dict[str, Tensor]:
    """The parameters of `narrow` in the shapes of those of `wide`, filled up with zeros; SiLU keeps zeros."""
    filled = {name: torch.zeros_like(value) for name, value in wide.state_dict().items()}
    for name, value in narrow.state_dict().items():
        filled[name][tuple(slice(n) for n in value.shape)] = value.to(filled[name])
    return filled


def new_control(unet: nn.Module) -> ControlNet:
    """The host's ControlNet with the base's encoder, frozen, and fresh parts of its own."""
    config = {key: value for key, value in UNET_CONFIG.items() if key != "out_channels"}
    control = ControlNet(
        **config, num_head_channels=HEAD, hint_channels=3, dtype=torch.float32, operations=disable_weight_init
    )
    initialise(control)
    control.load_state_dict(unet.state_dict(), strict=False)
    for name, parameter in control.named_parameters():
        parameter.requires_grad_(name.startswith(OWN))
        if name.startswith(OWN[1:]):
            nn.init.zeros_(parameter)
    return control


def encoder_layers(control: nn.Module) -> list[str]:
    """Names of the linear and convolutional layers that come from the base."""
    kinds = (nn.Linear, nn.Conv2d)
    return [n for n, layer in control.named_modules() if isinstance(layer, kinds) and not n.startswith(OWN)]


def silhouettes(people: Tensor) -> Tensor:
    """Hints `[B, 3, 128, 128]` of soft masks `[B, 1, 32, 32]`, some coarser or a little larger or smaller than others."""
    coarse = functional.avg_pool2d(people, 3, stride=1, padding=1)
    people = torch.where(torch.rand(len(people), 1, 1, 1, device=people.device) < 0.5, coarse, people)
    level = 0.3 + 0.4 * torch.rand(len(people), 1, 1, 1, device=people.device)
    smooth = functional.interpolate(people, size=(SIZE, SIZE), mode="bilinear")
    return (smooth > level).float().expand(-1, 3, -1, -1)


class ControlTraining(nn.Module):
    """What is trained; called, it gives the loss of a fresh batch."""

    def __init__(self, model: nn.ModuleDict, alpha_bar: Tensor, data: Pictures) -> None:
        super().__init__()
        self.base, self.alpha_bar, self.data = [model.eval().requires_grad_(False)], alpha_bar, data
        self.control = new_control(model["unet"]).to(DEVICE)
        self.wide = [self.control.input_hint_block]
        self.control.input_hint_block = narrow_hint_block(self.control.model_channels).to(DEVICE)
        self.change = WeightChanges(self.control, encoder_layers(self.control), RANK).to(DEVICE)

    def forward(self) -> Tensor:
        chosen = torch.randint(len(self.data.latents), (BATCH,)).numpy()
        clean, tokens, people = self.data.batch(chosen)
        visible = torch.from_numpy(self.data.masks[chosen]).float().sum(1, keepdim=True).div(255)
        hint, [base] = silhouettes(visible).to(DEVICE), self.base
        with torch.no_grad():
            context = encode_text(base["text"], tokens)
        control = self.change.changed()

        def velocity(noisy: Tensor, time: Tensor) -> Tensor:
            return predict(base["unet"], noisy, time, context, control(noisy, hint, time, context))

        early = torch.rand(BATCH).sqrt()  # mostly early in sampling, where positions are decided
        time = (len(self.alpha_bar) * early).long().to(DEVICE)
        return velocity_error(velocity, self.alpha_bar, time, clean, people)

    def tensors(self) -> dict[str, Tensor]:
        """In the names of a Control-LoRA."""
        hint = widened(self.control.input_hint_block, self.wide[0])
        named = {f"{OWN[0]}{name}": value for name, value in hint.items()}
        named |= {name: value for name, value in self.control.state_dict().items() if name.startswith(OWN[1:])}
        for name, (up, down) in self.change.factors().items():
            named |= {f"{name}.up": up, f"{name}.down": down}
        return {**named, "lora_controlnet": torch.zeros(0)}


def main(argv: list[str]) -> None:
    """Train for `--minutes`, resuming from `.mini/control.pt`, and export to `weights/mini`."""
    parser = argparse.ArgumentParser(prog="mini.model.control", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args(argv).minutes
    torch.manual_seed(0)
    training = ControlTraining(*load_model(WEIGHTS), Pictures())
    steps = fit("control", minutes, training)
    export(training.tensors(), FILE, steps)
