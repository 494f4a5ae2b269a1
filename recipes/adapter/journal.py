"""The records of a run: a progress line, a log, a tracker, validation sheets."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...moa_attention.adapters.base import Adapter
from ...moa_attention.subjects.reference import prepare_reference
from ...moa_attention.training.cache.entries import CachedPictures
from ...moa_attention.training.data.images import read_image
from ...moa_attention.training.data.pictures import PictureFolder
from ...moa_attention.training.saved.log import RunLog
from ...nodes.host.training.encoders import HostEncoders
from ...nodes.host.training.sheet import ValidationSheet, first_subjects
from .held_out import open_record
from .models import LoadedModels
from .run_files import LOG, stored_run_of
from .settings import Settings
from .tracking import Trackers


class Journal:
    """Called after every step with its number, its losses and the adapter as it would be saved now."""

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedModels,
        pictures: PictureFolder,
        cached: CachedPictures,
        held: CachedPictures,
        notes: Sequence[str],
        accelerator: Accelerator,
    ):
        self.settings, self.notes, wanted = settings, notes, settings.validation
        self.accelerator = accelerator
        self.trackers: Trackers | None = None
        self.bar = progress_bar(settings)
        self.log = RunLog(settings.output / LOG, digits=6)
        drawn = wanted.active and wanted.prompts
        self.sheet = open_sheet(settings, loaded.encoders, pictures, cached) if drawn else None
        self.held_out = open_record(settings, loaded, len(cached.entries), held)

    def __call__(self, step: int, numbers: dict[str, float], adapter: Adapter) -> None:
        if self.trackers is None:
            for note in self.notes:
                self.log.note(step - 1, note)
            self.trackers = Trackers(self.accelerator, self.settings, step)
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix_str(
            f"loss {numbers['loss']:.4f}, R_0 outside {numbers['prior_outside']:.2f}, R_1 inside "
            f"{numbers['personal_inside']:.2f}" + (", skipped: not finite" if "skipped" in numbers else "")
        )
        due = self.settings.validation.due(step, self.settings.train.steps)
        if due and self.held_out is not None:
            numbers = {**numbers, **self.held_out.measure(adapter)}
        self.log.step(step, {"time": round(time.time(), 1), **numbers})
        if due and self.held_out is not None:
            self.held_out.conclude(step, adapter)
        self.trackers.numbers(step, numbers)
        if due and self.sheet is not None:
            image = self.draw_sheet(self.sheet, step, adapter)
            self.trackers.image(step, "validation", image)

    def draw_sheet(self, sheet: ValidationSheet, step: int, adapter: Adapter) -> np.ndarray:
        """Write the validation sheet to `sheets/`: -> its pixels (H,W,3)."""
        image = (sheet.draw(adapter) * 255).round().byte().numpy()
        folder = self.settings.output / "sheets"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{step:07}.png")
        return image

    def close(self) -> None:
        """End the progress line and write what the tracker holds back."""
        if self.trackers is not None:
            self.trackers.close()
        self.bar.close()


def progress_bar(settings: Settings) -> tqdm:
    """The bar of a session, from the step that it resumes at. Its clock starts before the first step."""
    stored, train = stored_run_of(settings, None), settings.train
    return tqdm(total=train.steps, initial=0 if stored is None else stored.step, desc="train", unit="step")


def open_sheet(
    settings: Settings, encoders: HostEncoders, pictures: PictureFolder, cached: CachedPictures
) -> ValidationSheet:
    """The sheet of the subjects that the settings name, else of the first pictures."""
    if named := settings.validation.references:
        references = torch.cat([validation_reference(Path(path), encoders.side) for path in named])
    else:
        references = first_subjects(pictures.pictures, encoders.side)
    return ValidationSheet(encoders, settings.validation, cached.entries[0].shape, references, settings.data.words)


def validation_reference(path: Path, side: int) -> Tensor:
    """A picture of one subject, of which only opaque parts count: -> (1,3,side,side)."""
    pixels = read_image(path).float()[None] / 255
    return prepare_reference(pixels.movedim(1, -1), pixels[:, 3] if pixels.shape[1] == 4 else None, side)
