"""MoATrain: training inside ComfyUI, with the same loop as on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
from comfy_api.latest import io

from ..moa_attention.fingerprint import fingerprint
from ..moa_attention.training.config import TrainConfig
from ..moa_attention.training.data.layouts import read_pictures
from ..moa_attention.training.data.words import PERSON_WORDS
from .encoders import HostEncoders
from .load import CATEGORY, encoder_identity
from .painter import Painter
from .sheet import Studio, first_subjects
from .sockets import Adapter, AdapterSocket
from .training import trainable_adapter
from .training_run import LOG, fill_cache, for_sampling, read_losses, run_training

LossMap = io.Custom("LOSS_MAP")
"""The host's own: `{"loss": [...]}`, for its node Plot Loss Graph."""
PREVIEW_STEPS, PREVIEW_GUIDANCE, SUBJECTS_SHOWN = 20, 5.0, 2
RUNS = "moa_training"
"""Folder of ComfyUI's output folder in which runs keep state, log and cache."""


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
                io.Int.Input(
                    "preview_every",
                    default=250,
                    min=0,
                    max=1_000_000,
                    advanced=True,
                    tooltip="Steps between preview sheets (base model beside personalised, and the router's map); 0 for none.",
                ),
                io.String.Input(
                    "preview_prompts",
                    multiline=True,
                    default="a photo of a man on a beach\na photo of a woman in a room",
                    advanced=True,
                    tooltip="One a line, each with a word for a person. The subjects are the first of the folder.",
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
        preview_every: int,
        preview_prompts: str,
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
        reading = read_pictures(inside(folder_paths.get_input_directory(), folder))
        cached = fill_cache(reading, module, encoders, side, run / "cache")
        height, width = (pixels // encoders.scale for pixels in cached.entries[0].shape)
        painter = Painter(model, clip, vae, (height, width), PREVIEW_STEPS, PREVIEW_GUIDANCE)
        prompts = tuple(line for line in preview_prompts.splitlines() if line.strip())
        shown = first_subjects(reading.pictures, encoders.side, SUBJECTS_SHOWN)
        studio = Studio(painter, prompts, shown, encoders, PERSON_WORDS)
        trained = run_training(studio, module, cached, config, run, preview_every)
        provenance = {
            "base_fingerprint": fingerprint(model.model.diffusion_model),
            "data": folder,
            "data_licence": licence,
            "pictures": len(cached.entries),
            "config": vars(config),
        }
        patcher = for_sampling(trained)
        adapter = Adapter(patcher, name, encoder_identity(patcher.model), licence, provenance)
        return io.NodeOutput(adapter, {"loss": read_losses(run / LOG)}, cached.report())
