"""Trains MoA Mini's text encoder and U-Net together, on the latents that `latents.py` wrote.

Plain v-prediction at log-normal noise levels, errors where people are counted twice, a tenth of the captions empty so that
guidance works. Muon (Jordan et al., 2024) orthogonalises the updates of hidden matrices. The learning rate rises, stays, and
falls over the last fifth of the pictures. What is exported is the exponential moving average of the weights.

On a CPU every process computes the gradients of its share of a batch on its own cores, and they are averaged: threads of one
process would wait for one another in every operation, and lose most of their time as soon as another program needs a core.
"""

import argparse
import copy
import os
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from ....moa_attention.training.optimisation.pair import PairedOptimiser
from ....moa_attention.training.precision import mixed_precision
from ..data.dataset import load
from ..data.faces import WEIGHTS, WORK
from .diffusion import velocity_loss
from .preview import sample_sheet
from .session import DEVICE, Session
from .text import tokenise
from .unet import WIDTH, export_model, load_model, new_model

LATENTS = WORK / "train_latents.npy"
PICTURES = 2_500_000
BATCH = 64
PEAK_RATE = 2.5e-3
WARM_UP = 20_000
"""Pictures over which the learning rate rises."""
DECAY = 0.2
"""Last share of all pictures, over which it falls to nothing."""
EMPTY_RATE = 0.1
EMA_DECAY = 0.9995
SAVE_EVERY, LOG_EVERY = 300, 50
"""Seconds, and steps."""


class Pictures:
    """The training pictures: latents, where people are, and token ids, with the empty caption mixed in."""

    def __init__(self, latents: Path = LATENTS) -> None:
        shard = load("train")
        distinct, self.row = np.unique(shard.records["caption"], return_inverse=True)
        self.tokens = tokenise([*distinct.tolist(), ""])
        self.ids = self.tokens.unique()
        self.latents = np.load(latents, mmap_mode="r")
        self.masks = shard.masks

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents `[B, 32, 16, 16]`, tokens `[B, 77]` and people `[B, 1, 16, 16]` of `count` random pictures."""
        return self.batch(torch.randint(len(self.latents), (count,)).numpy())

    def batch(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the pictures `chosen` `[B]`, a random tenth of them with the empty caption."""
        rows = torch.from_numpy(self.row[chosen])
        rows = rows.masked_fill(torch.rand(len(chosen)) < EMPTY_RATE, len(self.tokens) - 1)
        clean = torch.from_numpy(self.latents[chosen]).float()
        people = torch.from_numpy(self.masks[chosen]).float().sum(1, keepdim=True).div(255).clamp(max=1)
        people = nn.functional.adaptive_avg_pool2d(people, (clean.shape[-2], clean.shape[-1]))
        return clean.to(DEVICE), self.tokens[rows].to(DEVICE), people.to(DEVICE)


def rate(seen: int, pictures: int) -> float:
    """Learning rate after `seen` of `pictures`: linear warm-up, constant, linear decay to zero."""
    return PEAK_RATE * min(1.0, (seen + BATCH) / WARM_UP, max(0.0, (pictures - seen) / (DECAY * pictures)))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Move `average` towards `model`, faster while there have been few steps."""
    share = 1 - min(EMA_DECAY, (1 + step) / (10 + step))
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, share)


def hidden_matrices(unet: UNetModel) -> list[nn.Parameter]:
    """The weights between a U-Net's first layer and its last one that have rows and columns; kernels of convolutions count."""
    ends = {id(p) for end in (cast("nn.Module", unet.input_blocks[0]), unet.out) for p in end.parameters()}
    return [p for p in unet.parameters() if p.ndim > 1 and id(p) not in ends]


def average_gradients(model: nn.Module) -> None:
    """The mean over all processes, in place."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    means = (flat / dist.get_world_size()).split([g.numel() for g in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


class Training:
    """One process's share of a training named `name`; the first process saves, logs and exports."""

    def __init__(self, name: str, model: nn.ModuleDict, alpha_bar: Tensor) -> None:
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self.model, self.alpha_bar = model, alpha_bar
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.hidden = hidden_matrices(cast("UNetModel", model["unet"]))
        self.matrices = [nn.Parameter(weight.detach().flatten(1)) for weight in self.hidden]  # the same memory
        self.optimiser = self.make_optimiser()
        parts = {"model": model, "average": self.average, "optimiser": self.optimiser}
        self.session = Session(WORK, name, **parts)

    @property
    def seen(self) -> int:
        return self.session.step * BATCH

    def make_optimiser(self) -> PairedOptimiser:
        """Muon for the hidden matrices, AdamW for the others, with one learning rate."""
        hidden = set(map(id, self.hidden))
        others = [p for p in self.model.parameters() if id(p) not in hidden]
        muon = torch.optim.Muon(self.matrices, PEAK_RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        return PairedOptimiser(muon, torch.optim.AdamW(others, PEAK_RATE, (0.9, 0.99), weight_decay=0.01, fused=True))

    def step(self, data: Pictures, pictures: int) -> Tensor:
        """One update; gives the loss of this process's share. What is drawn depends on the step alone."""
        torch.manual_seed(self.session.step * self.processes + self.rank)
        batch = data.draw(BATCH // self.processes)
        with mixed_precision(DEVICE):
            loss = velocity_loss(self.model, self.alpha_bar, *batch)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for matrix, weight in zip(self.matrices, self.hidden, strict=True):
            assert weight.grad is not None
            matrix.grad = weight.grad.flatten(1)
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.seen, pictures)
        self.optimiser.step()
        update_average(self.average, self.model, self.session.step)
        self.session.step += 1
        return loss.detach()

    def run(self, data: Pictures, pictures: int) -> None:
        """Train, or go on training, until so many pictures have been seen."""
        losses, since = [], time.monotonic()
        while self.seen < pictures:
            losses.append(self.step(data, pictures))
            if self.rank:
                continue
            if self.session.step % LOG_EVERY == 0:
                speed = BATCH * len(losses) / (time.monotonic() - since)
                self.session.log(pictures=self.seen, speed=round(speed, 1), loss=torch.stack(losses).mean().item())
                losses, since = [], time.monotonic()
            if self.session.due(SAVE_EVERY):
                self.session.save()
        if not self.rank:
            self.session.save()


def train(rank: int, options: argparse.Namespace) -> None:
    """The work of process `rank`."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.processes))
    rendezvous = f"file://{WORK}/{options.name}.processes"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=options.processes)
    data = Pictures()
    torch.manual_seed(0)
    start = load_model(options.start) if options.start else new_model(data.ids, options.width)
    training = Training(options.name, *start)
    training.run(data, options.pictures)
    if not rank:
        export_model(training.average, options.folder, training.session.step)
        sample_sheet(training.average, start[1], WORK / f"{options.name}_sheet.png")
    dist.destroy_process_group()


def main(argv: list[str]) -> None:
    """Train, resuming what `.mini/<name>.pt` holds; `mini.model.preview` shows and exports it meanwhile."""
    parser = argparse.ArgumentParser(prog="mini.model.base", description=__doc__)
    parser.add_argument("--name", default="base", help="name of the state, `.mini/NAME.pt`, and of the log")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="number of pictures of the whole training")
    parser.add_argument("--width", type=int, default=WIDTH, help="channels of a fresh U-Net, a multiple of 32")
    parser.add_argument("--start", type=Path, help=f"folder of weights to start from, for example {WEIGHTS}")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="folder for the averaged weights at the end")
    parser.add_argument("--processes", type=int, default=2 if DEVICE.type == "cpu" else 1)
    options = parser.parse_args(argv)
    (WORK / f"{options.name}.processes").unlink(missing_ok=True)
    start_processes(train, (options,), options.processes, start_method="fork")
