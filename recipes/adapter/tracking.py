"""The losses and sheets of a run on TensorBoard or Weights & Biases, through Accelerate."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from accelerate import Accelerator

from .settings import Settings

PROJECT = "moa"
"""Of the runs on Weights & Biases."""


def tracking_accelerator(settings: Settings) -> Accelerator:
    """The accelerator of a run, with its tracker."""
    return Accelerator(
        log_with=None if settings.tracker == "none" else settings.tracker, project_dir=str(settings.output)
    )


class Trackers:
    """The trackers of a run from a step on.

    Steps that a killed session did after its last state are forgotten by TensorBoard, as in the log. Weights & Biases
    continues the run of the same output folder.
    """

    def __init__(self, accelerator: Accelerator, settings: Settings, step: int):
        self.accelerator = accelerator
        place = str(settings.output.resolve())
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"purge_step": step},
            "wandb": {
                "name": settings.output.name, "id": hashlib.blake2b(place.encode(), digest_size=8).hexdigest(),
                "resume": "allow", "dir": place, "config": asdict(settings),
            },
        }  # fmt: skip
        name = "tensorboard" if settings.tracker == "tensorboard" else PROJECT  # the former's is a folder
        accelerator.init_trackers(name, init_kwargs={n: o for n, o in options.items() if n == settings.tracker})

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step."""
        self.accelerator.log(dict(values), step=step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture (H,W,3) of bytes."""
        for tracker in self.accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: np.ascontiguousarray(pixels)[None]}, step=step, **layout)

    def close(self) -> None:
        """Write what is held back."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
