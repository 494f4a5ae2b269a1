"""A training picture: an image, its caption, and where in both its subjects are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


class BadPicture(ValueError):
    """A picture that cannot be trained on; the message is the reason a person reads, "kind: details"."""


class Mask(NamedTuple):
    """Where a mask is stored."""

    path: Path
    value: int | None = None
    """The subject's number in a `.npy` segmentation; None: a picture, whose alpha or brightness is the mask."""


@dataclass(frozen=True)
class Subject:
    """Somebody or something in a picture."""

    end: int
    """Offset in the caption just behind its word; the word's last token becomes the subject."""
    mask: Mask
    references: tuple[Path, ...] = ()
    """Other pictures of it (ours); without any, the picture itself is the reference, as in the paper."""


@dataclass(frozen=True)
class Picture:
    """One example."""

    path: Path
    caption: str
    subjects: tuple[Subject, ...]


@dataclass
class Reading:
    """What a folder held."""

    pictures: list[Picture] = field(default_factory=list)
    dropped: list[tuple[Path, str]] = field(default_factory=list)
    """Files left out, and why."""


def report(used: int, dropped: Sequence[tuple[Path, str]]) -> str:
    """How many pictures there are, how many were left out for which kind of reason, and a line for each of those."""
    kinds = Counter(reason.split(":")[0] for _, reason in dropped)
    lines = [f"{used} pictures to train on, {len(dropped)} left out"]
    lines += [f"  {count} × {kind}" for kind, count in kinds.most_common()]
    return "\n".join([*lines, *(f"{path}: {reason}" for path, reason in dropped)])


def read_image(path: Path) -> Tensor:
    """(3,H,W) or, with transparency, (4,H,W), uint8, turned as the camera says.

    Raises: BadPicture.
    """
    try:
        with Image.open(path) as file:
            turned = ImageOps.exif_transpose(file)
            clear = "A" in turned.getbands() or "transparency" in turned.info
            pixels = np.array(turned.convert("RGBA" if clear else "RGB"))
    except FileNotFoundError as error:
        raise BadPicture(f"missing file: {path.name}") from error
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadPicture(f"unreadable picture: {path.name} ({error})") from error
    return torch.from_numpy(pixels).movedim(-1, 0)


def read_mask(mask: Mask) -> Tensor:
    """(H,W) in [0,1].

    Raises: BadPicture.
    """
    if mask.value is not None:
        try:
            return torch.from_numpy(np.load(mask.path, allow_pickle=False) == mask.value).float()
        except (OSError, ValueError) as error:
            raise BadPicture(f"unreadable segmentation: {mask.path.name} ({error})") from error
    pixels = read_image(mask.path).float() / 255
    return pixels[3] if len(pixels) == 4 else pixels.mean(dim=0)


def read_masks(picture: Picture, size: tuple[int, int]) -> Tensor:
    """(S,H,W) in [0,1], on the picture's own grid.

    Raises: BadPicture when one cannot be read, has another shape than the picture, or shows nothing.
    """
    masks = []
    for number, subject in enumerate(picture.subjects, start=1):
        mask = read_mask(subject.mask)
        if abs(mask.shape[0] / mask.shape[1] / (size[0] / size[1]) - 1) > 0.02:
            raise BadPicture(
                f"mask of another shape: {subject.mask.path.name} is {mask.shape[1]} × {mask.shape[0]}, the picture {size[1]} × {size[0]}"
            )
        mask = torch.nn.functional.interpolate(mask[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
        if not (mask > 0.5).any():
            raise BadPicture(f"empty mask: of subject {number}, {subject.mask.path.name}")
        masks.append(mask)
    return torch.stack(masks)
