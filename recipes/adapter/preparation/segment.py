"""Silhouettes of the subjects of a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor

from ..settings import PrepareSettings, SettingsError, check_model_folder

Segmenter = Callable[[Image.Image], list[Tensor]]
"""A picture -> (H,W) in [0,1] for each subject, from left to right."""
SELFIE = Path(__file__).resolve().parents[3] / ".host" / "selfie_segmentation.tflite"


def open_segmenter(wanted: PrepareSettings, device: torch.device) -> Segmenter:
    """The segmenter the settings name, else the small one for people.

    Raises: SettingsError when it cannot be loaded.
    """
    find = named(wanted.segmenter, wanted.labels, device) if wanted.segmenter else selfie()

    def segment(image: Image.Image) -> list[Tensor]:
        large = [mask for mask in find(image) if mask.mean() >= wanted.smallest]
        return sorted(large, key=horizontal_centre)

    return segment


def horizontal_centre(mask: Tensor) -> float:
    """The horizontal centre of a silhouette, in pixels from the left."""
    weights = mask.sum(dim=0)
    return float((weights * torch.arange(len(weights))).sum() / weights.sum())


def islands(mask: Tensor) -> list[Tensor]:
    """A soft mask for each connected part: people with a gap between them are different subjects. (H,W) -> [(H,W)]"""
    numbers, count = cast("tuple[np.ndarray, int]", ndimage.label(mask.numpy() > 0.5))
    near = [ndimage.binary_dilation(numbers == n, iterations=2) for n in range(1, count + 1)]  # the soft edge, too
    return [mask * torch.from_numpy(part) for part in near]


def selfie() -> Segmenter:
    """MediaPipe's segmenter of people: fast and small; it separates only people with a gap between them.

    Raises: SettingsError when its file does not exist.
    """
    from ai_edge_litert.interpreter import Interpreter

    if not SELFIE.is_file():
        raise SettingsError(
            f"There is no file {SELFIE}. `python dev.py prepare` downloads it; or set prepare.segmenter to a model of your own."
        )
    network = Interpreter(str(SELFIE))
    network.allocate_tensors()
    (entry,), (out,) = network.get_input_details(), network.get_output_details()

    def find(image: Image.Image) -> list[Tensor]:
        small = image.resize((entry["shape"][2], entry["shape"][1]), Image.Resampling.BICUBIC)
        network.set_tensor(entry["index"], np.asarray(small, np.float32)[None] / 255)
        network.invoke()
        people = islands(torch.from_numpy(network.get_tensor(out["index"])[0, ..., 0].copy()).clamp(0, 1))
        return [F.interpolate(p[None, None], size=image.size[::-1], mode="bilinear")[0, 0] for p in people]

    return find


def named(folder: str, labels: Sequence[str], device: torch.device) -> Segmenter:
    """A panoptic, instance or semantic segmentation model of transformers from a local folder.

    Raises: SettingsError when there is none, or it knows none of the labels.
    """
    from transformers import logging, pipeline

    logging.set_verbosity_error()  # a hint for every picture, otherwise
    check_model_folder("prepare.segmenter", folder, "Mask2Former")
    segment = pipeline("image-segmentation", model=folder, device=device)
    known = set((segment.model.config.id2label or {}).values())
    if not known & set(labels):
        raise SettingsError(
            f"prepare.labels: this segmenter knows none of {list(labels)}; it knows {sorted(known)[:40]}."
        )

    def find(image: Image.Image) -> list[Tensor]:
        masks: list[Tensor] = []
        for part in segment(image):
            if part["label"] in labels:
                mask = torch.from_numpy(np.asarray(part["mask"], np.float32) / 255)
                # Without a score it is a kind of thing, not one thing.
                masks += [mask] if part["score"] is not None else islands(mask)
        return masks

    return find
