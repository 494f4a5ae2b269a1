"""What a run will need, before anything is loaded: `python dev.py plan config.toml [--card "RTX 3060"]`.

The U-Net is built without contents from the checkpoint's header, one step is taken with it, and what would have been
allocated is added up.
"""

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_patcher
import torch
from safetensors import safe_open

from ...moa_attention.checkpoint import read_header
from ...moa_attention.config import EMBEDDED_ENCODER
from ...moa_attention.encoder import ImageEncoder
from ...moa_attention.training.base import Batch
from ...moa_attention.training.footprint import Footprint, footprint
from ...moa_attention.training.objective import Objective
from ...nodes.folders import WEIGHTS
from ...nodes.layers import fresh_adapter, unet_of
from ...nodes.mini import UNET_CONFIG, Mini
from ...nodes.patch import host_patcher
from ...nodes.training import HostBase, checkpointed
from .settings import MINI, Settings, SettingsError, read_settings

META = torch.device("meta")
TOKENS, SUBJECTS, CLIP_WIDTH = 77, 2, 768
PREFIX = "model.diffusion_model."
CARDS = {
    "RTX 3060": (12, 51), "RTX 4060 Ti": (16, 88), "RTX 3090": (24, 71), "RTX 4090": (24, 165), "RTX 5090": (32, 210),
    "L40S": (48, 362), "A100": (80, 312), "H100": (80, 989),
}  # fmt: skip
"""GiB, and TFLOP/s of dense bfloat16 arithmetic by the makers' data sheets."""
REACHED = 0.3
"""The share of that which a U-Net's training is taken to reach: a guess, not a measurement."""
OVERHEAD = 1.0
"""GiB for the driver's context and for fragments: a guess, not a measurement."""


def hollow_model(settings: Settings) -> Any:
    """The checkpoint's U-Net with shapes but no contents, as the host would build it.

    Raises: SettingsError when the file holds no U-Net that the host knows.
    """
    if settings.models.checkpoint == MINI:
        config: Any = Mini(UNET_CONFIG)
    else:
        try:
            with safe_open(settings.models.checkpoint, framework="pt") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (no mapping)
        except Exception as error:
            raise SettingsError(f"models.checkpoint: {settings.models.checkpoint} cannot be read: {error}") from error
        weights = {key: torch.empty(shape, device=META) for key, shape in shapes.items()}
        config = comfy.model_detection.model_config_from_unet(weights, PREFIX)
        if config is None:
            raise SettingsError(f"models.checkpoint: ComfyUI does not know the model in {settings.models.checkpoint}.")
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, PREFIX, device=META).to(META)
    return comfy.model_patcher.ModelPatcher(model.eval().requires_grad_(False), load_device=META, offload_device=META)


def hollow_batch(model: Any, settings: Settings, image_width: int, embedded: bool) -> Batch:
    """One micro-batch without contents."""
    config, unet = settings.train, model.model.model_config.unet_config
    rows, side = config.micro_batch or config.batch_size, settings.data.side // 8
    slots = torch.zeros(rows, TOKENS, dtype=torch.long)
    slots[:, 4], slots[:, 9] = 1, 2

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=META)

    picture = ImageEncoder.picture
    adm = unet.get("adm_in_channels")
    return Batch(
        latents=empty(rows, model.model.latent_format.latent_channels, side, side),
        context=empty(rows, TOKENS, unet["context_dim"]),
        slots=slots,
        references=empty(rows, SUBJECTS, *((3, picture, picture) if embedded else (image_width,))),
        masks=empty(rows, SUBJECTS, side, side),
        pooled=torch.zeros(rows, adm - 6 * 256) if adm else None,  # the host joins it to numbers of its own
    )


def estimate(settings: Settings, fused: bool) -> Footprint:
    """The footprint of one optimiser step.

    Args: fused: as in `footprint`.
    """
    model, chosen = hollow_model(settings), settings.adapter
    embedded = settings.models.checkpoint == MINI
    bundled = read_header(WEIGHTS / "mini" / "adapter.safetensors").config
    width = bundled.image_width if embedded else CLIP_WIDTH
    with META:
        adapter = fresh_adapter(
            model, EMBEDDED_ENCODER if embedded else settings.models.clip_vision_name, width, rank=chosen.rank,
            router=chosen.router, output_projection=chosen.output_projection,
        )  # fmt: skip
    base = HostBase(model, host_patcher(adapter))
    batch = hollow_batch(model, settings, width, embedded)
    with checkpointed(model.model) if settings.train.checkpointing else nullcontext():
        found = footprint(Objective(adapter, base, settings.train), unet_of(model.model), batch, settings.train, fused)
    return found.in_bfloat16() if settings.train.precision == "bfloat16" else found


def thriftier(settings: Settings) -> list[tuple[str, Settings]]:
    """The run as it stands, and with what would save memory, one thing after the other."""
    train, adapter = settings.train, settings.adapter
    steps = [("as it is", settings)]
    if (train.micro_batch or train.batch_size) > 1:
        train = replace(train, micro_batch=1)
        steps.append(("train.micro_batch = 1", replace(settings, train=train)))
    if not train.checkpointing:
        train = replace(train, checkpointing=True)
        steps.append(("and train.checkpointing = true", replace(settings, train=train)))
    if not adapter.rank and not adapter.start:
        adapter = replace(adapter, rank=64)
        steps.append(("and adapter.rank = 64 (learns less)", replace(settings, train=train, adapter=adapter)))
    if train.ema_decay:
        train = replace(train, ema_decay=0.0)
        steps.append(("and train.ema_decay = 0", replace(settings, train=train, adapter=adapter)))
    return steps


def main(argv: list[str]) -> None:
    """Print a table: memory by what it is for, the time of all steps, and whether it fits."""
    parser = argparse.ArgumentParser(prog="plan", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--card", choices=[*CARDS, "cpu"], default="RTX 4090", help="whose memory and speed")
    options = parser.parse_args(argv)
    room, speed = CARDS.get(options.card, (0, 0))
    print(f"{options.card}" + (f": {room} GiB, {speed} TFLOP/s by its data sheet" if room else ""))
    print("\n| | base | adapter | working | in all, GiB | fits | hours |\n|---|---|---|---|---|---|---|")
    try:
        settings = read_settings(options.config)
        for name, variant in thriftier(settings):
            found = estimate(variant, fused=bool(room))
            total = found.total / 2**30 + (OVERHEAD if room else 0)
            parts = " | ".join(f"{part / 2**30:.2f}" for part in (found.base, found.adapter, found.working))
            hours = f"{found.flops * variant.train.steps / (speed * 1e12 * REACHED) / 3600:.1f}" if speed else ""
            fits = ("yes" if total <= room else "no") if room else ""
            print(f"| {name} | {parts} | {total:.2f} | {fits} | {hours} |", flush=True)
    except ValueError as error:
        sys.exit(f"plan: {error}")
    if settings.train.only_routers:
        print(
            "\nThis counts a whole adapter. With only_routers less is trained, and less memory is needed than this says."
        )
    if room:
        print(
            f"\nIn all: with {OVERHEAD:g} GiB for driver and fragments. Hours: at {REACHED:.0%} of the data sheet's speed."
        )
        print(
            "Both are estimates; on a CPU the memory was measured within 15 %, on a card nothing has been measured yet."
        )
