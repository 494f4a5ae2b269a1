"""The pixels of pictures and masks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ...formats.errors import printable
from .listing import PICTURES
from .pictures import BadPicture, MaskFile, TrainingPicture

LARGEST = 100_000_000
"""Pixels of a picture. A small file may claim any number of them."""
COLOURFUL = 51
"""Difference of a pixel's channels, of 255, from which it has a colour and is not of a mask."""
FULL, BORDERED = 0.98, 0.75
"""Share of the picture, or of its border, from which a mask is suspicious."""


def read_image(path: Path) -> Tensor:
    """(3,H,W) or, with transparency, (4,H,W), uint8, rotated as its EXIF orientation requires.

    The first frame of an animation. 16 bits are scaled to 8. An alpha that is the same everywhere counts as none.

    Raises: BadPicture.
    """
    pixels = read_pixels(path)
    return pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels


def read_pixels(path: Path) -> Tensor:
    """As `read_image`; a grey picture without transparency is (1,H,W).

    Raises: BadPicture.
    """
    try:
        with Image.open(path, formats=formats()) as file:
            if file.width * file.height > LARGEST:
                raise ValueError(f"{file.width} × {file.height} pixels; at most {LARGEST:,} pixels are read")
            ImageOps.exif_transpose(file, in_place=True)
            pixels = np.array(eight_bits(file))
    except FileNotFoundError as error:
        raise BadPicture(f"missing file: {printable(path.name)}") from error
    except Exception as error:  # Pillow's readers raise errors of almost every type on broken files
        reason = str(error).replace(str(path), path.name)
        raise BadPicture(f"unreadable picture: {printable(path.name)} ({printable(reason)})") from error
    channels = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).movedim(-1, 0).contiguous()
    return channels[:3] if len(channels) == 4 and (channels[3] == channels[3, 0, 0]).all() else channels


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats of `PICTURES` that it can read here.

    By its content a file may be of any other format, whatever its name, and Pillow starts Ghostscript for one of them.
    """
    known = Image.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in PICTURES if known.get(suffix) in Image.OPEN}))


def eight_bits(image: Image.Image) -> Image.Image:
    """In the mode RGB or L, or RGBA where the file has any transparency.

    Raises: ValueError when a picture of integers or floats exceeds 16 bits or 1.
    """
    if image.mode.startswith(("I", "F")):
        values, largest = np.asarray(image, np.float32), 1.0 if image.mode == "F" else 65535.0
        if not (values.min() >= 0 and values.max() <= largest):
            raise ValueError(f"its values are {values.min():g} to {values.max():g}, not 0 to {largest:g}")
        return Image.fromarray((values / largest * 255).round().astype(np.uint8))
    clear = "A" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if clear else "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def read_reference(path: Path) -> tuple[Tensor, Tensor]:
    """A reference picture of one subject, and its transparency as mask: (3,H,W) uint8, (H,W) in [0,1].

    Raises: BadPicture.
    """
    pixels = read_image(path)
    mask = pixels[3] / 255 if len(pixels) == 4 else torch.ones(pixels.shape[1:])
    if not (mask > 0.5).any():
        raise BadPicture(f"empty reference: {printable(path.name)} is transparent everywhere")
    return pixels[:3], mask


def read_mask(mask: MaskFile) -> Tensor:
    """(H,W) in [0,1].

    Raises: BadPicture.
    """
    if mask.value is not None:
        try:
            return segment_mask(np.lib.format.open_memmap(mask.path, mode="r"), mask.value)
        except Exception as error:  # a damaged file can raise anything in the reader
            raise BadPicture(f"unreadable segmentation: {printable(mask.path.name)} ({printable(error)})") from error
    pixels = read_pixels(mask.path)
    if len(pixels) in (1, 4):
        return pixels[-1] / 255
    if float((pixels.amax(dim=0) - pixels.amin(dim=0) > COLOURFUL).float().mean()) > 0.1:
        raise BadPicture(
            f"no mask: {printable(mask.path.name)} has colours; a mask is white, or opaque, where the subject is"
        )
    return pixels.float().mean(dim=0) / 255


def segment_mask(segments: np.ndarray, value: int) -> Tensor:
    """1 where the segments (H,W) have a number: (H,W) float32.

    Raises: ValueError when they are not a picture of numbers.
    """
    if segments.ndim != 2 or segments.dtype.kind not in "iubf":
        raise ValueError(f"expected height × width numbers, found {segments.shape} of {segments.dtype}")
    return torch.from_numpy(np.asarray(segments == value)).float()


def read_masks(picture: TrainingPicture, size: tuple[int, int]) -> Tensor:
    """(S,H,W) in [0,1], on the picture's own grid.

    Raises: BadPicture when one cannot be read, has another shape than the picture, or shows nothing.
    """
    masks = []
    for number, subject in enumerate(picture.subjects, start=1):
        mask, name = read_mask(subject.mask), printable(subject.mask.path.name)
        if abs(mask.shape[0] / mask.shape[1] / (size[0] / size[1]) - 1) > 0.02:
            raise BadPicture(
                f"mask of another shape: {name} is {mask.shape[1]} × {mask.shape[0]}, the picture is {size[1]} × {size[0]}"
            )
        brightest = float(mask.max())
        if mask.shape != size:
            mask = F.interpolate(mask[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
        if not mask.max() > 0.5:
            raise BadPicture(f"empty mask: of subject {number}, {name}; its largest value is {brightest:.1%} of white")
        masks.append(mask)
    return torch.stack(masks) if len(masks) > 1 else masks[0][None]


def mask_warnings(picture: TrainingPicture, masks: Tensor) -> list[str]:
    """What looks wrong in masks (S,H,W) that can be read."""
    found = []
    for subject, mask in zip(picture.subjects, masks, strict=True):
        name, cover = printable(subject.mask.path.name), float(mask.mean())
        border = float(torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())
        if cover > FULL:
            found.append(f"mask covers everything: {name} covers {cover:.0%} of the picture")
        elif border > BORDERED and cover < border:
            found.append(
                f"mask looks inverted: {name} covers {border:.0%} of the border and {cover:.0%} of the picture"
            )
        elif int(((mask > 0.2) & (mask < 0.8)).count_nonzero()) > 0.5 * mask.numel():
            found.append(f"mask looks like a photo: most of {name} is grey, neither subject nor background")
    return found
