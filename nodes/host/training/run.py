"""A training run inside ComfyUI: progress, previews and cancelling through the host, state and log in the output folder."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ....moa_attention.adapters.base import Adapter
from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.pictures import to_image
from ....moa_attention.training.cache.entries import CachedPictures
from ....moa_attention.training.config import PictureConfig, SheetConfig, TrainConfig
from ....moa_attention.training.data.pictures import PictureFolder
from ....moa_attention.training.lots import check_division
from ....moa_attention.training.saved.log import RunLog
from ....moa_attention.training.saved.settings import RunMismatch, RunSettings, check_run, read_run
from ..files.adapters import HOST
from ..model.patch import host_patcher
from .data import cached_examples, encode_pictures
from .encoders import HostEncoders
from .sheet import ValidationSheet, first_subjects, subject_word
from .trainable import LoadedModels
from .trainer import TrainingSession

STATE, LOG, CACHE, SHEETS = "state.safetensors", "log.jsonl", "cache", "sheets"
PICTURES = "fingerprint of the folder"
"""Among a run's settings: that of its pictures, captions and masks."""


class HostRun:
    """A run whose files are in one folder.

    Args:
        config, pictures, sheets: its settings; `sheets.every` counts the steps between previews.
        kept: what the run keeps of all its settings, `PICTURES` among them.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        pictures: PictureConfig,
        sheets: SheetConfig,
        kept: RunSettings,
    ):
        self.folder, self.kept = folder, kept
        self.config, self.pictures, self.sheets = config, pictures, sheets
        self.rows = RunLog(folder / LOG)
        self.cancelled: BaseException | None = None

    def check(self) -> list[str]:
        """Whether this run can be started or resumed. Returns: a sentence for each setting that changed.

        Raises: ValueError when the batch cannot be divided, a preview has no subject, a setting must not change, or the
            pictures changed after the last step.
        """
        check_division(self.config, 1)
        if self.sheets.every:
            for prompt in self.sheets.prompts:
                subject_word(prompt, self.pictures.words)
        stored = read_run(self.folder / STATE)
        if stored is None:
            return []
        changes = check_run(self.folder / STATE, stored, self.kept, self.config.steps)
        if stored.step == self.config.steps and PICTURES in self.kept.changes_since(stored.settings):
            raise RunMismatch(
                f"The run '{self.folder.name}' has done its {stored.step} steps, and the pictures have changed since. Raise "
                "'steps' to continue it with the changed pictures, or choose another 'name' to train from the beginning."
            )
        for text in changes:
            self.rows.note(stored.step, text)
        return changes

    def changes(self) -> list[dict[str, Any]]:
        """All changes of the run's settings so far, for the provenance of its result."""
        stored = read_run(self.folder / STATE)
        return [] if stored is None else stored.changes

    def encode(self, folder: PictureFolder, models: LoadedModels) -> CachedPictures:
        """Encode the pictures, with progress.

        Raises: ValueError when no picture can be trained on.
        """
        bar = comfy.utils.ProgressBar(max(1, len(folder.pictures)))
        cache = self.folder / CACHE
        return encode_pictures(
            folder, models.adapter, models.encoders, self.pictures, cache, lambda done, _: bar.update_absolute(done)
        )

    def train(self, folder: PictureFolder, models: LoadedModels, cached: CachedPictures) -> Adapter:
        """Train with a progress bar, previews and a log; a cancelled run saves its state first.

        Raises: the host's InterruptProcessingException.
        """
        encoders, adapter, _ = models
        sheet = self.open_sheet(folder, encoders, cached) if self.sheets.every else None
        bar = comfy.utils.ProgressBar(self.config.steps)

        def log(step: int, numbers: dict[str, float], averaged: Adapter) -> None:
            self.rows.step(step, numbers)
            try:  # the host cancels through its sampler and its progress bar; the session ends in order
                due = sheet is not None and (step % self.sheets.every == 0 or step == self.config.steps)
                shown = self.preview(sheet.draw(averaged), step) if sheet is not None and due else None
                bar.update_absolute(step, self.config.steps, shown)
            except comfy.model_management.InterruptProcessingException as cancel:
                self.cancelled = cancel

        examples = cached_examples(cached, adapter, encoders, self.pictures, self.config)
        session = TrainingSession(
            encoders.model, adapter, self.config, self.folder / STATE, log, lambda: self.cancelled is None,
            settings=self.kept,
        )  # fmt: skip
        trained = session.run(examples)
        if self.cancelled is not None:
            raise self.cancelled
        return trained

    def open_sheet(self, folder: PictureFolder, encoders: HostEncoders, cached: CachedPictures) -> ValidationSheet:
        """The preview's sheet, of the first subjects of the folder."""
        references = first_subjects(folder.pictures, encoders.side)
        return ValidationSheet(encoders, self.sheets, cached.entries[0].shape, references, self.pictures.words)

    def preview(self, sheet: Tensor, step: int) -> tuple[str, Image.Image, int]:
        """Keep a sheet (H,W,3) in the run's folder. Returns: it in the form that the host's progress bar takes."""
        image = to_image(sheet)
        (self.folder / SHEETS).mkdir(exist_ok=True)
        image.save(self.folder / SHEETS / f"{step:07}.png")
        return "JPEG", image, max(image.size)


def for_sampling(trained: MoAAdapter, disable_dynamic: bool = False) -> Any:
    """A patcher of the trained weights, as the loader makes one from a file.

    There is no file: where the host makes the patcher again (multi-GPU clones, dynamic VRAM), it copies this one's weights.
    """
    adapter = MoAAdapter(trained.config, replace(HOST, dtype=torch.float16))
    adapter.load_state_dict(trained.state_dict())
    patcher = host_patcher(adapter.eval().requires_grad_(False), disable_dynamic)
    patcher.cached_patcher_init = (for_sampling, (adapter,))
    return patcher


def with_trained_routers(trained: Adapter, disable_dynamic: bool = False) -> Any:
    """The same of an adapter of which only the routers were trained: all other weights are as they were loaded."""
    adapter = copy.deepcopy(trained).to(comfy.model_management.unet_offload_device())
    patcher = host_patcher(adapter, disable_dynamic)
    patcher.cached_patcher_init = (with_trained_routers, (adapter,))
    return patcher
