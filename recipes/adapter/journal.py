"""What a run shows of itself: a progress line, a log, TensorBoard scalars, validation sheets."""

import json
import time
from pathlib import Path
from typing import Any

import comfy.model_management
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.reference import prepare_reference
from ...moa_attention.training.data.pictures import read_image
from ...nodes.patch import host_patcher
from ...nodes.sheet import Studio, validation_sheet
from .models import Loaded
from .settings import Settings


class Journal:
    """Called after every step with its number, its losses and the adapter as it would be saved now."""

    def __init__(self, settings: Settings, loaded: Loaded, references: list[Path], shape: tuple[int, int]):
        self.settings, self.loaded = settings, loaded
        self.bar: tqdm | None = None
        self.patcher: Any = None
        """Of the averaged adapter, which is one object all the way."""
        self.log = (settings.output / "log.jsonl").open("a", encoding="utf-8")
        self.board = SummaryWriter(str(settings.output / "tensorboard"))
        chosen = settings.validation
        self.studio = Studio(
            loaded.model, loaded.clip, loaded.vae, chosen.prompts, tuple(picture(path) for path in references),
            settings.data.words, shape, loaded.model.model.latent_format.latent_channels, chosen.steps, chosen.guidance,
        )  # fmt: skip

    def __call__(self, step: int, numbers: dict[str, float], adapter: MoAAdapter) -> None:
        if self.bar is None:
            self.bar = tqdm(total=self.settings.train.steps, initial=step - 1, desc="train", unit="step")
        self.bar.update(step - self.bar.n)
        self.bar.set_postfix_str(
            f"loss {numbers['loss']:.4f}, R_0 outside {numbers['prior_outside']:.2f}, R_1 inside {numbers['personal_inside']:.2f}"
        )
        rounded = {name: round(value, 6) for name, value in numbers.items()}
        self.log.write(json.dumps({"step": step, "time": round(time.time(), 1), **rounded}) + "\n")
        self.log.flush()
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)
        every = self.settings.validation.every
        if every and (step % every == 0 or step == self.settings.train.steps):
            self.sheet(step, adapter)

    @torch.no_grad()
    def sheet(self, step: int, adapter: MoAAdapter) -> None:
        """Paint, write to `sheets/` and to TensorBoard."""
        self.patcher = self.patcher or host_patcher(adapter.eval())
        comfy.model_management.load_models_gpu([self.patcher])
        pixels = validation_sheet(self.studio, self.patcher, [self.look(adapter, r) for r in self.studio.references])
        folder = self.settings.output / "sheets"
        folder.mkdir(exist_ok=True)
        image = (pixels * 255).round().byte().numpy()
        Image.fromarray(image).save(folder / f"{step:07}.png")
        self.board.add_image("validation", np.ascontiguousarray(image), step, dataformats="HWC")

    def look(self, adapter: MoAAdapter, reference: Tensor) -> Tensor:
        """(3,H,W) -> (1,F), as SubjectEncode does."""
        side = self.loaded.encoders.side
        prepared = prepare_reference(reference.movedim(0, -1)[None], None, side)
        if adapter.encoder is None:
            return self.loaded.encoders.features(prepared)
        return adapter.encoder(prepared.to(next(adapter.parameters()).device)).float().cpu()

    def close(self) -> None:
        self.board.close()
        self.log.close()
        if self.bar is not None:
            self.bar.close()


def picture(path: Path) -> Tensor:
    """(3,H,W) in [0,1]; what is transparent is grey."""
    pixels = read_image(path).float() / 255
    return pixels[:3] * pixels[3:] + 0.5 * (1 - pixels[3:]) if len(pixels) == 4 else pixels
