"""What a run shows of itself: a progress line, a log, TensorBoard scalars, validation sheets."""

import json
import time
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ...moa_attention.fitted import Expert
from ...nodes.painter import Painter
from ...nodes.patch import host_patcher
from ...nodes.sheet import Studio, validation_sheet
from .models import Loaded
from .settings import Settings


class Journal:
    """Called after every step with its number, its losses and the adapter as it would be saved now."""

    def __init__(self, settings: Settings, loaded: Loaded, references: Tensor, shape: tuple[int, int]):
        self.settings = settings
        self.bar: tqdm | None = None
        self.patcher: Any = None
        """Of the averaged adapter, which is one object all the way."""
        self.log = (settings.output / "log.jsonl").open("a", encoding="utf-8")
        self.board = SummaryWriter(str(settings.output / "tensorboard"))
        chosen = settings.validation
        painter = Painter(loaded.model, loaded.clip, loaded.vae, shape, chosen.steps, chosen.guidance)
        self.studio = Studio(painter, chosen.prompts, references, loaded.encoders, settings.data.words)

    def __call__(self, step: int, numbers: dict[str, float], adapter: Expert) -> None:
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

    def sheet(self, step: int, adapter: Expert) -> None:
        """Paint, write to `sheets/` and to TensorBoard."""
        self.patcher = self.patcher or host_patcher(adapter.eval())
        pixels = validation_sheet(self.studio, self.patcher)
        folder = self.settings.output / "sheets"
        folder.mkdir(exist_ok=True)
        image = (pixels * 255).round().byte().numpy()
        Image.fromarray(image).save(folder / f"{step:07}.png")
        self.board.add_image("validation", np.ascontiguousarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self.board.close()
        self.log.close()
        if self.bar is not None:
            self.bar.close()
