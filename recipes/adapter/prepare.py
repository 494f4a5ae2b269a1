"""Make the captions and masks that a folder of pictures lacks, and draw contact sheets of what training will use.

`python dev.py prepare config.toml`, with the config that trains. Existing files are not changed; stopped or killed, the
same command resumes. `<output>/prepared` holds the contact sheets, and a report of what is left out and why.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...moa_attention.formats.atomic import replacing
from ...moa_attention.training.data.captions import long_caption
from ...moa_attention.training.data.fastcomposer import is_fastcomposer
from ...moa_attention.training.data.folder import find_captions, find_masks
from ...moa_attention.training.data.framing import load_picture
from ...moa_attention.training.data.images import read_image
from ...moa_attention.training.data.listing import CAPTION, PictureFiles, list_folder
from ...moa_attention.training.data.pictures import BadPicture, PictureFolder, Remark, TrainingPicture
from ...moa_attention.training.data.texts import CaptionTexts
from ...moa_attention.training.datasets.config import DatasetConfig
from ...moa_attention.training.datasets.reading import captions_of
from ...nodes.host.training.encoders import caption_parts
from .commands import read_request
from .data import SHOWN, datasets_of, read_all_folders
from .preparation.captioner import Captioner
from .preparation.contact import draw_left_out, draw_used, write_sheets
from .preparation.matching import ClipMatching, Matching, left_to_right
from .preparation.segment import Segmenter, open_segmenter
from .settings import Settings


@dataclass(frozen=True)
class Makers:
    """The functions that make what is missing."""

    caption: Callable[[Image.Image], str] | None
    segment: Segmenter
    match: Matching


def main(argv: list[str]) -> None:
    """Fill the folder, draw the sheets, report."""
    settings = read_request("prepare", argv).settings
    try:
        notes = fill_folders(settings)
        folder = settings.output / "prepared"
        folder.mkdir(parents=True, exist_ok=True)
        found = read_all_folders(settings)
        found.warnings += notes
        left_out = len(found.dropped)
        write_sheets(draw_cells(found, settings.data.side), folder)
    except (ValueError, OSError) as error:  # what users can mend; all other errors are faults of ours
        sys.exit(f"prepare: {error}")
    path, report = folder / "report.txt", found.report(len(found.pictures) + left_out - len(found.dropped))
    path.write_text(f"{report}\n", encoding="utf-8")
    print(report.shortened(SHOWN, path))
    print(f"Check the contact sheets before training. They and the full report are in {folder}.")


def draw_cells(found: PictureFolder, side: int) -> Iterator[Image.Image]:
    """Every picture that can be trained on at about side² pixels, then every other one.

    Reasons to leave out a picture and warnings join `found`.
    """
    before: dict[Path, list[str]] = {}
    for remark in found.warnings:
        before.setdefault(remark.path, []).append(remark.text)
    for picture in tqdm(found.pictures, desc="check", unit="picture"):
        try:
            loaded = load_picture(picture, side)
        except BadPicture as reason:
            found.drop(picture, str(reason))
            continue
        warnings = [*loaded.warnings, *length_warnings(picture)]
        found.warnings += [Remark(picture.path, warning) for warning in warnings]
        yield draw_used(picture, loaded, [*before.get(picture.path, []), *warnings])
    yield from map(draw_left_out, found.dropped)


def length_warnings(picture: TrainingPicture) -> list[str]:
    """A warning for captions that the text encoder takes in several parts."""
    parts = max(caption_parts(caption.text) for caption in picture.captions)
    return [long_caption(parts)] if parts > 1 else []


def fill_folders(settings: Settings) -> list[Remark]:
    """Make what is missing. Returns: remarks on silhouettes that do not fit the words."""
    datasets = [each for each in datasets_of(settings) if not is_fastcomposer(Path(each.folder))]
    if not datasets:
        return []
    wanted, device = settings.prepare, comfy.model_management.get_torch_device()
    makers = Makers(
        Captioner(wanted.captioner, device) if wanted.captioner else None,
        open_segmenter(wanted, device),
        ClipMatching(wanted.clip, device) if wanted.clip else left_to_right,
    )
    return [remark for dataset in datasets for remark in fill_folder(dataset, makers, settings.data.words)]


def fill_folder(dataset: DatasetConfig, makers: Makers, words: Sequence[str]) -> Iterator[Remark]:
    """The same in one folder."""
    texts = captions_of(dataset)
    listed = list_folder(Path(dataset.folder), PictureFolder(), texts.suffix, texts.file)
    for files in tqdm(listed, desc="prepare", unit="picture"):
        try:
            yield from (Remark(files.picture, note) for note in fill(files, makers, texts, dataset.words or words))
        except BadPicture:
            continue  # reported when the folder is read again


def fill(files: PictureFiles, makers: Makers, texts: CaptionTexts, words: Sequence[str]) -> list[str]:
    """Caption and masks of one picture, as far as they are missing. Returns: notes.

    Raises: BadPicture when the picture cannot be read or its caption has no word for a subject.
    """
    path = files.picture
    image = Image.fromarray(read_image(path)[:3].movedim(0, -1).numpy())
    if not files.captions and makers.caption and texts.suffix == CAPTION:
        files.captions.append(path.with_suffix(".txt"))
        write(files.captions[0], makers.caption(image))
    caption = find_captions(files, words, texts)[0]
    if find_masks(files):
        return []
    masks, notes, ends = makers.segment(image), [], caption.ends
    found = f"{len(masks)} silhouettes for {len(ends)} words in '{caption.text}'"
    if len(masks) < len(ends):  # perhaps one silhouette of two people
        return [f"no masks are made: {found}"]
    if len(masks) > len(ends):
        notes.append(f"the largest silhouettes are used: {found}")
        largest = sorted(range(len(masks)), key=lambda n: -float(masks[n].sum()))[: len(ends)]
        masks = [masks[n] for n in sorted(largest)]
    pairs = makers.match(image, [caption.text[:end].split()[-1] for end in ends], masks)
    write_masks(path, [masks[mask] for _, mask in pairs])
    return notes


def write(path: Path, text: str) -> None:
    """Write a line of text, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def write_masks(path: Path, masks: Sequence[Tensor]) -> None:
    """The masks (H,W) in [0,1] of a picture, in the order of its words; all are complete before the first is renamed."""
    files = [path.with_name(f"{path.stem}.mask{number}.png") for number in range(1, len(masks) + 1)]
    with ExitStack() as stack:
        for file, mask in zip(files, masks, strict=True):
            part = stack.enter_context(replacing(file))
            Image.fromarray((mask * 255).round().byte().numpy()).save(part, format="png")
