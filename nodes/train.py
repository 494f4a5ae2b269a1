"""MoATrain: training inside ComfyUI, with the same loop as on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.training.config import TrainConfig
from ..moa_attention.training.data.cache import Cached, CacheSettings, build_cache
from ..moa_attention.training.data.examples import CachedExamples
from ..moa_attention.training.data.layouts import read_pictures
from ..moa_attention.training.loop import train
from .encoders import HostEncoders, fingerprint
from .load import CATEGORY, encoder_identity
from .patch import host_patcher
from .sockets import Adapter, AdapterSocket
from .training import HostBase, trainable_adapter, training_mode

LossMap = io.Custom("LOSS_MAP")
"""The host's own: `{"loss": [...]}`, for its node Plot Loss Graph."""
VIEWS = 8
"""Augmented references computed of each subject, for CLIP vision."""
RUNS, STATE, LOG = "moa_training", "state.safetensors", "log.jsonl"
"""Folder of ComfyUI's output folder in which runs keep these files and the cache."""


def input_folders() -> list[str]:
    """Folders inside ComfyUI's input folder."""
    root = Path(folder_paths.get_input_directory())
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_dir() and not p.name.startswith("."))


def inside(root: str, name: str) -> Path:
    """A folder below `root`.

    Raises: ValueError when the name leads out of it.
    """
    path = (Path(root) / name).resolve()
    if not path.is_relative_to(Path(root).resolve()) or path == Path(root).resolve():
        raise ValueError(f"'{name}' is no folder inside {root}. Choose a plain name.")
    return path


class MoATrain(io.ComfyNode):
    """A folder of pictures -> MOA_ADAPTER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoATrain",
            display_name="Train MoA Adapter",
            category=CATEGORY,
            description="Trains an adapter for this model on a folder of pictures with captions and masks. Cancelled or "
            "killed, the same node with the same name goes on where it was.",
            search_aliases=["moa train", "train adapter", "finetune", "train subject adapter"],
            is_experimental=True,
            inputs=[
                io.Model.Input("model", tooltip="The base model; it stays as it is."),
                io.Clip.Input("clip", tooltip="The base model's text encoder."),
                io.Vae.Input("vae", tooltip="The base model's VAE."),
                io.Combo.Input(
                    "folder",
                    options=input_folders(),
                    tooltip="A folder inside ComfyUI's input folder: pictures, a .txt caption and a mask beside each "
                    "(see the help page), or FastComposer's layout.",
                ),
                io.String.Input(
                    "name", default="my_adapter", tooltip="Of the run. Its state and cache are kept under it."
                ),
                io.Int.Input("steps", default=2000, min=1, max=1_000_000, tooltip="Optimiser steps in all."),
                io.Int.Input("batch_size", default=16, min=1, max=4096, tooltip="Pictures a step."),
                io.Int.Input(
                    "micro_batch",
                    default=0,
                    min=0,
                    max=4096,
                    advanced=True,
                    tooltip="Pictures in memory at once; 0: all of a step. A divisor of batch_size. Less memory, same result.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-5,
                    min=1e-7,
                    max=1.0,
                    step=1e-7,
                    round=False,
                    tooltip="The paper's is 1e-5; a low rank takes ten times as much.",
                ),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=0,
                    max=512,
                    tooltip="Inner dimensions of what is learned beside the model's own attention weights; 0 trains whole "
                    "matrices as the paper does.",
                ),
                io.Int.Input(
                    "side", default=512, min=64, max=2048, step=64, tooltip="Pictures get about side² pixels."
                ),
                io.Boolean.Input(
                    "checkpointing", default=True, advanced=True, tooltip="A third slower, a fraction of the memory."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**53,
                    control_after_generate=False,
                    tooltip="Order of the pictures, noise and timesteps.",
                ),
                io.String.Input(
                    "licence",
                    default="not stated",
                    advanced=True,
                    tooltip="What the pictures allow; saved with the adapter.",
                ),
                AdapterSocket.Input(
                    "start", optional=True, tooltip="An adapter to go on from; its kind wins over rank."
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="What the adapter will see its subjects through. Not for MoA Mini, whose adapter sees by itself.",
                ),
                io.String.Input(
                    "clip_vision_name",
                    default="clip-vit-large-patch14",
                    advanced=True,
                    tooltip="How users of the adapter will be told to find that CLIP vision model.",
                ),
            ],
            outputs=[
                AdapterSocket.Output(display_name="adapter", tooltip="For MoASaveAdapter, SubjectEncode and ApplyMoA."),
                LossMap.Output(display_name="loss_map", tooltip="For ComfyUI's Plot Loss Graph."),
                io.String.Output(display_name="report", tooltip="What was trained on, what was left out and why."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        folder: str,
        name: str,
        steps: int,
        batch_size: int,
        micro_batch: int,
        learning_rate: float,
        rank: int,
        side: int,
        checkpointing: bool,
        seed: int,
        licence: str,
        start: Adapter | None = None,
        clip_vision: Any = None,
        clip_vision_name: str = "clip-vit-large-patch14",
    ) -> io.NodeOutput:
        run = inside(str(Path(folder_paths.get_output_directory()) / RUNS), name)
        config = TrainConfig(
            steps=steps, batch_size=batch_size, micro_batch=micro_batch, learning_rate=learning_rate,
            checkpointing=checkpointing, seed=seed, precision="float32" if comfy.model_management.cpu_mode() else "bfloat16",
        )  # fmt: skip
        encoders = HostEncoders(model, clip, vae, clip_vision)
        module = trainable_adapter(model, encoders, clip_vision_name, start and start.patcher.model, seed, rank=rank)
        pictures = inside(folder_paths.get_input_directory(), folder)
        cached, report = fill_cache(pictures, module, encoders, side, run / "cache")
        trained = run_training(model, module, encoders, cached, config, run)
        provenance = {
            "base_fingerprint": fingerprint(model.model.diffusion_model),
            "data": folder,
            "data_licence": licence,
            "pictures": len(cached.entries),
            "config": vars(config),
        }
        patcher = for_sampling(trained)
        adapter = Adapter(patcher, name, encoder_identity(patcher.model), licence, provenance)
        return io.NodeOutput(adapter, {"loss": read_losses(run / LOG)}, report)


def fill_cache(folder: Path, adapter: MoAAdapter, encoders: HostEncoders, side: int, cache: Path) -> tuple[Cached, str]:
    """Read and encode the pictures, with progress; the report says what was left out and why.

    Raises: ValueError when nothing is left to train on.
    """
    reading = read_pictures(folder)
    settings = CacheSettings(side, 0 if adapter.encoder is not None else VIEWS, "fastcomposer")
    bar = comfy.utils.ProgressBar(max(1, len(reading.pictures)))

    def progress(done: int, _all: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done)

    cached = build_cache(reading.pictures, encoders, settings, cache, progress)
    dropped = [*reading.dropped, *cached.dropped]
    lines = [f"{len(cached.entries)} pictures to train on, {len(dropped)} left out"]
    report = "\n".join([*lines, *(f"{path.name}: {reason}" for path, reason in dropped)])
    if not cached.entries:
        raise ValueError(f"Nothing to train on in {folder}. {report}")
    return cached, report


def run_training(
    model: Any,
    adapter: MoAAdapter,
    encoders: HostEncoders,
    cached: Cached,
    config: TrainConfig,
    run: Path,
) -> MoAAdapter:
    """The loop, with a progress bar and a log; a cancelled run saves its state first.

    Raises: the host's InterruptProcessingException.
    """
    bar = comfy.utils.ProgressBar(config.steps)
    cancelled: list[BaseException] = []

    def log(step: int, numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        with (run / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        try:
            bar.update_absolute(step)
        except comfy.model_management.InterruptProcessingException as cancel:
            cancelled.append(cancel)  # the host cancels through its progress bar; the loop must end in order

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
