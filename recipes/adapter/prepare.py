"""Makes the captions and masks that a folder of pictures lacks, and shows everything before it is trained on.

`python dev.py prepare config.toml`, with the very config that trains. Nothing that is there is changed; stopped or killed, it
goes on where it was. Look at `<output>/prepared`: contact sheets, and a report of what is left out and why.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...moa_attention.training.data.fastcomposer import is_fastcomposer
from ...moa_attention.training.data.folder import find_masks, groups, read_caption
from ...moa_attention.training.data.pictures import BadPicture, Picture, read_image, read_masks, report
from .data import SHOWN, read
from .preparation.captioner import Captioner
from .preparation.contact import write_sheets
from .preparation.matching import Likeness, Matching, left_to_right
from .preparation.segment import Segmenter, open_segmenter
from .settings import Settings, read_settings


@dataclass(frozen=True)
class Makers:
    """Whatever makes what is missing."""

    caption: Callable[[Image.Image], str] | None
    segment: Segmenter
    match: Matching
    words: Sequence[str]


def main(argv: list[str]) -> None:
    """Fill the folder, look it through, report."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__)
    parser.add_argument("config", type=Path)
    try:
        settings = read_settings(parser.parse_args(argv).config)
        read(settings.data)  # no such folder: said before models are loaded
        notes = [] if is_fastcomposer(Path(settings.data.folder)) else fill_folder(settings)
        folder = settings.output / "prepared"
        folder.mkdir(parents=True, exist_ok=True)
        reading = read(settings.data)
        dropped = list(reading.dropped)
        used = write_sheets(look_through(reading.pictures, dropped), folder)
    except (ValueError, OSError) as error:  # what a person can mend; anything else is our mistake
        sys.exit(f"prepare: {error}")
    lines = [*report(used, dropped).splitlines(), *notes]
    (folder / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n  ".join(lines[: SHOWN + 1]))
    print(f"Look at the contact sheets before training; they and the whole report are in {folder}.")


def fill_folder(settings: Settings) -> list[str]:
    """Make what is missing. Returns: what a person may want to know of pictures that are used all the same."""
    wanted, device = settings.prepare, comfy.model_management.get_torch_device()
    makers = Makers(
        Captioner(wanted.captioner, device) if wanted.captioner else None,
        open_segmenter(wanted, device),
        Likeness(wanted.clip, device) if wanted.clip else left_to_right,
        settings.data.words,
    )
    notes: list[str] = []
    for path, beside in tqdm(list(groups(Path(settings.data.folder))), desc="prepare", unit="picture"):
        try:
            notes += [f"{path}: {note}" for note in fill(path, beside, makers)]
        except BadPicture:
            continue  # it is still so when the folder is read again, and is reported then
    return notes


def fill(path: Path, beside: Sequence[Path], makers: Makers) -> list[str]:
    """Caption and masks of one picture, as far as they are missing. Returns: notes.

    Raises: BadPicture when the picture cannot be read or its caption has no word for a subject.
    """
    image = Image.fromarray(read_image(path)[:3].movedim(0, -1).numpy())
    file = path.with_suffix(".txt")
    if not file.is_file() and makers.caption:
        write(file, makers.caption(image))
    caption, ends = read_caption(path, makers.words)
    if find_masks(path, beside):
        return []
    masks, notes = makers.segment(image), []
    if len(masks) < len(ends):  # perhaps one silhouette of two people: nobody knows who is whose
        return [f"{len(masks)} silhouettes for {len(ends)} words in '{caption}': no masks are made"]
    if len(masks) > len(ends):
        notes.append(f"{len(masks)} silhouettes for {len(ends)} words in '{caption}': the largest are used")
        largest = sorted(range(len(masks)), key=lambda n: -float(masks[n].sum()))[: len(ends)]
        masks = [masks[n] for n in sorted(largest)]
    pairs = makers.match(image, [caption[:end].split()[-1] for end in ends], masks)
    write_masks(path, [masks[mask] for _, mask in pairs])
    return notes


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def write_masks(path: Path, masks: Sequence[Tensor]) -> None:
    """The masks (H,W) in [0,1] of a picture, in the order of its words; all whole before the first has its name."""
    files = [path.with_name(f"{path.stem}.mask{number}.png") for number in range(1, len(masks) + 1)]
    for file, mask in zip(files, masks, strict=True):
        Image.fromarray((mask * 255).round().byte().numpy()).save(file.with_suffix(".part"), format="png")
    for file in files:
        file.with_suffix(".part").replace(file)


def look_through(
    pictures: Sequence[Picture], dropped: list[tuple[Path, str]]
) -> Iterator[tuple[Picture, np.ndarray, Tensor]]:
    """Every picture that can be trained on, with its pixels (H,W,3) and masks (S,H,W); the others join `dropped`."""
    for picture in tqdm(pictures, desc="look", unit="picture"):
        try:
            pixels = read_image(picture.path)[:3]
            yield picture, pixels.movedim(0, -1).numpy(), read_masks(picture, (pixels.shape[1], pixels.shape[2]))
        except BadPicture as reason:
            dropped.append((picture.path, str(reason)))
