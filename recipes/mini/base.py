"""Trains MoA Mini's text encoder and U-Net together, on the latents that `latents.py` wrote.

Plain v-prediction on the host's discrete schedule, every timestep equally often, a tenth of the captions empty so that
guidance works. What is exported is the exponential moving average of the weights.
"""

import argparse
import copy
import json

import comfy.ops
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...nodes.mini import TOKEN_IDS, build_unet
from .dataset import SIZE, load
from .faces import WEIGHTS, WORK
from .latents import decode, preview_factors
from .scenes import SCENES
from .session import DEVICE, Session, export, initialise
from .text import encode_text, new_text_model, text_weights, tokenise

BATCH = 16
PEAK_RATE = 1e-3
EMPTY_RATE = 0.1
EMA_DECAY = 0.999


def _zero_outputs(unet: nn.Module) -> None:
    """Residual branches start as nothing, so that the untrained net is as shallow as it can be."""
    for module in unet.modules():
        for name in ("out_layers", "proj_out"):
            branch = getattr(module, name, None)
            if branch is not None:
                last = branch[-1] if isinstance(branch, nn.Sequential) else branch
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
    nn.init.zeros_(unet.out[-1].weight)
    nn.init.zeros_(unet.out[-1].bias)


def new_model(ids: Tensor) -> tuple[nn.ModuleDict, Tensor]:
    """Fresh `unet` and `text`, and the schedule's cumulative signal share (alpha bar) `[1000]`."""
    operations = comfy.ops.disable_weight_init
    base = build_unet({}, operations)
    unet = base.diffusion_model
    initialise(unet)
    _zero_outputs(unet)
    alpha_bar = 1 / (base.model_sampling.sigmas.float() ** 2 + 1)
    model = nn.ModuleDict({"unet": unet.requires_grad_(True), "text": new_text_model(ids, operations)})
    return model.to(DEVICE), alpha_bar.to(DEVICE)


def velocity_loss(model: nn.ModuleDict, alpha_bar: Tensor, clean: Tensor, tokens: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity; `clean` `[B, 32, 16, 16]`, `tokens` `[B, 77]`."""
    time = torch.randint(len(alpha_bar), (len(clean),)).to(DEVICE)
    signal, noise_share = alpha_bar[time].sqrt().view(-1, 1, 1, 1), (1 - alpha_bar[time]).sqrt().view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    context = encode_text(model["text"], tokens)
    predicted = model["unet"](signal * clean + noise_share * noise, time.float(), context=context)
    return functional.mse_loss(predicted.float(), signal * noise - noise_share * clean)


@torch.no_grad()
def sample(model: nn.ModuleDict, alpha_bar: Tensor, tokens: Tensor, steps: int = 20, guidance: float = 3.0) -> Tensor:
    """DDIM with guidance against the empty caption: latents `[B, 32, 16, 16]` of `tokens` `[B, 77]`, seed 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(tokens), 32, 16, 16, generator=generator).to(DEVICE)
    context = encode_text(model["text"], torch.cat((tokens, tokenise([""]).expand_as(tokens))).to(DEVICE))
    times = torch.linspace(len(alpha_bar) - 1, 0, steps + 1).round().long()
    for now, after in zip(times[:-1], times[1:], strict=True):
        signal, noise_share = alpha_bar[now].sqrt(), (1 - alpha_bar[now]).sqrt()
        both = model["unet"](torch.cat((x, x)), now.float().expand(2 * len(x)), context=context)
        wanted, unwanted = both.chunk(2)
        velocity = unwanted + guidance * (wanted - unwanted)
        clean, noise = signal * x - noise_share * velocity, noise_share * x + signal * velocity
        x = alpha_bar[after].sqrt() * clean + (1 - alpha_bar[after]).sqrt() * noise
    return x


def sample_sheet(model: nn.ModuleDict, alpha_bar: Tensor) -> None:
    """Write `.mini/base_sheet.png`: each scene with a man, with a woman, with both, decoded linearly."""
    people = ("a man", "a woman", "a man and a woman")
    tokens = tokenise([f"{who} {place}" for who in people for place in SCENES])
    with torch.autocast(DEVICE.type, torch.bfloat16):
        latents = sample(model, alpha_bar, tokens).float().cpu()
    pictures = (decode(latents) * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    rows = pictures.reshape(len(people), len(SCENES), SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(rows.reshape(len(people) * SIZE, len(SCENES) * SIZE, 3)).save(WORK / "base_sheet.png")


def export_model(model: nn.ModuleDict, step: int) -> None:
    """Write `unet.safetensors` and `clip.safetensors` to `weights/mini`."""
    metadata = {"format": "moa-mini", "license": "GPL-3.0-or-later", "steps": str(step)}
    factors, bias = (json.dumps(x.double().numpy().round(4).tolist()) for x in preview_factors())
    preview = {"latent_rgb_factors": factors, "latent_rgb_factors_bias": bias}
    export(model["unet"].state_dict(), WEIGHTS / "unet.safetensors", {**metadata, **preview})
    export(text_weights(model["text"]), WEIGHTS / "clip.safetensors", metadata)


class Captions:
    """Token ids of every training picture, drawn with the empty caption mixed in."""

    def __init__(self, captions: np.ndarray) -> None:
        distinct, self.row = np.unique(captions, return_inverse=True)
        self.tokens = tokenise([*distinct.tolist(), ""])
        self.ids = self.tokens.unique()

    def draw(self, chosen: Tensor) -> Tensor:
        """`[B, 77]` for the pictures `chosen` `[B]`."""
        rows = torch.from_numpy(self.row)[chosen]
        rows = rows.masked_fill(torch.rand(len(rows)) < EMPTY_RATE, len(self.tokens) - 1)
        return self.tokens[rows]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Move `average` towards `model`, faster while there have been few steps."""
    share = 1 - min(EMA_DECAY, (1 + step) / (10 + step))
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, share)


def load_shipped(model: nn.ModuleDict) -> None:
    """Begin with the weights of `weights/mini` instead of fresh ones."""
    model["unet"].load_state_dict(load_file(WEIGHTS / "unet.safetensors"))
    words = load_file(WEIGHTS / "clip.safetensors")
    words.pop(TOKEN_IDS)
    model["text"].load_state_dict(words, strict=False)  # the word table's index is the captions' own


def train(minutes: float, shipped: bool) -> None:
    """Train, or go on training, for so many minutes altogether, exporting on the way."""
    captions = Captions(load("train").records["caption"])
    latents = torch.from_numpy(np.load(WORK / "train_latents.npy"))
    torch.manual_seed(0)
    model, alpha_bar = new_model(captions.ids)
    if shipped:
        load_shipped(model)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    session = Session(WORK, "base", minutes, model=model, average=average, optimiser=optimiser)
    losses: list[float] = []
    while session.progress < 1:
        optimiser.param_groups[0]["lr"] = session.rate(PEAK_RATE)
        chosen = torch.randint(len(latents), (BATCH,))
        clean, tokens = latents[chosen].float().to(DEVICE), captions.draw(chosen).to(DEVICE)
        # bf16 halves the time of a CPU that has it, and plain attention that of the fused one's backward pass
        with sdpa_kernel(SDPBackend.MATH), torch.autocast(DEVICE.type, torch.bfloat16):
            loss = velocity_loss(model, alpha_bar, clean, tokens)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        update_average(average, model, session.step)
        session.step += 1
        losses.append(loss.item())
        if session.step % 50 == 0:
            session.log(loss=round(sum(losses) / len(losses), 5), rate=optimiser.param_groups[0]["lr"])
            losses.clear()
        if session.due(300):
            session.save()
            export_model(average, session.step)
            sample_sheet(average, alpha_bar)
    session.save()
    export_model(average, session.step)
    sample_sheet(average, alpha_bar)


def main(argv: list[str]) -> None:
    """Train for `--minutes`, resuming what `.mini/base.pt` holds."""
    parser = argparse.ArgumentParser(prog="mini.base", description=__doc__)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--shipped", action="store_true", help="begin with the weights that are shipped")
    options = parser.parse_args(argv)
    train(options.minutes, options.shipped)
