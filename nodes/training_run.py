"""A training run inside ComfyUI: progress, previews and cancelling through the host, state and log in the output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from PIL import Image

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.training.config import TrainConfig
from ..moa_attention.training.data.cache import Cached, CacheSettings, build_cache
from ..moa_attention.training.data.examples import CachedExamples
from ..moa_attention.training.data.pictures import Reading
from ..moa_attention.training.loop import train
from .encoders import HostEncoders
from .patch import host_patcher
from .sheet import Studio, validation_sheet
from .training import HostBase, training_mode

STATE, LOG = "state.safetensors", "log.jsonl"
VIEWS = 8
"""Augmented references computed of each subject, for CLIP vision."""


def fill_cache(reading: Reading, adapter: MoAAdapter, encoders: HostEncoders, side: int, cache: Path) -> Cached:
    """Encode the pictures, with progress.

    Raises: ValueError when nothing is left to train on.
    """
    settings = CacheSettings(side, 0 if adapter.encoder is not None else VIEWS, "fastcomposer")
    bar = comfy.utils.ProgressBar(max(1, len(reading.pictures)))
    return build_cache(reading, encoders, settings, cache, lambda done, _: bar.update_absolute(done))


def run_training(
    studio: Studio, adapter: MoAAdapter, cached: Cached, config: TrainConfig, run: Path, preview_every: int
) -> MoAAdapter:
    """The loop, with a progress bar, previews and a log; a cancelled run saves its state first.

    Raises: the host's InterruptProcessingException.
    """
    bar = comfy.utils.ProgressBar(config.steps)
    cancelled: list[BaseException] = []

    patchers: dict[int, Any] = {}

    def preview(step: int, averaged: MoAAdapter) -> tuple[str, Image.Image, int] | None:
        if not preview_every or step % preview_every:
            return None
        patcher = patchers.setdefault(id(averaged), host_patcher(averaged))
        sheet = (validation_sheet(studio, patcher) * 255).round().byte().numpy()
        return "JPEG", Image.fromarray(sheet), max(sheet.shape)

    def log(step: int, numbers: dict[str, float], averaged: MoAAdapter) -> None:
        with (run / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        try:
            bar.update_absolute(step, config.steps, preview(step, averaged))
        except comfy.model_management.InterruptProcessingException as cancel:
            cancelled.append(cancel)  # the host cancels through its progress bar; the loop must end in order

    model, encoders = studio.painter.model, studio.encoders
    null = encoders.text("", [])
    side = encoders.side if adapter.encoder is not None else None
    examples = CachedExamples(cached.entries, null, config, "fastcomposer", side, model.load_device)
    with training_mode(model, config):
        base = HostBase(model, host_patcher(adapter.to(model.load_device)))
        trained = train(adapter, base, examples, config, run / STATE, log, lambda: not cancelled)
    if cancelled:
        raise cancelled[0]
    return trained


def read_losses(log: Path) -> list[float]:
    """The loss of every step of a run, those before a restart among them; a step done twice counts as done last."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    by_step = {row["step"]: row["loss"] for row in rows}
    return [by_step[step] for step in sorted(by_step)]


def for_sampling(trained: MoAAdapter) -> Any:
    """A patcher of the trained weights, as the loader would give it from a file."""
    adapter = MoAAdapter(trained.config, operations=comfy.ops.manual_cast, dtype=torch.float16)
    adapter.load_state_dict(trained.state_dict())
    return host_patcher(adapter.eval().requires_grad_(False))
