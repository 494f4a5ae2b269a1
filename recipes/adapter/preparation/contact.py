"""Contact sheets of a training set: every picture with its crop and its masks in colours, and its caption with the
subjects' words in those colours; then the pictures that are left out, with the reasons."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from ....moa_attention.formats.errors import printable
from ....moa_attention.pictures import page, to_image
from ....moa_attention.training.data.framing import LoadedPicture
from ....moa_attention.training.data.images import read_image
from ....moa_attention.training.data.pictures import BadPicture, Caption, Remark, TrainingPicture

COLUMNS, ROWS = 5, 4
CELL, MARGIN, LINES = 240, 8, 7
"""Pixels of a picture's side, pixels around it, lines of text under it."""
SIZE = 13
LINE = SIZE + 4
CAPTION_LINES = 3
INK, FAINT, WRONG, PAPER = (30, 30, 30), (130, 130, 130), (190, 30, 30), (255, 255, 255)
COLOURS = [(214, 69, 65), (31, 119, 180), (44, 140, 60), (148, 85, 180)]
OPACITY, OUTSIDE = 0.45, 0.75
"""Opacity of a mask's colour, and of the paper over what the crop leaves out."""


class Word(NamedTuple):
    """A word on the sheet."""

    text: str
    colour: tuple[int, int, int] = INK


def write_sheets(cells: Iterable[Image.Image], folder: Path, name: str = "contact") -> list[Path]:
    """Write `contact_001.jpg` and so on; the sheets of earlier runs are removed."""
    for old in folder.glob(f"{name}_*.jpg"):
        old.unlink()
    cells, written = iter(cells), []
    while shown := list(islice(cells, COLUMNS * ROWS)):
        written.append(folder / f"{name}_{len(written) + 1:03}.jpg")
        page(shown, COLUMNS).save(written[-1], quality=88)
    return written


def draw_used(picture: TrainingPicture, loaded: LoadedPicture, warnings: Sequence[str]) -> Image.Image:
    """A picture that is trained on: tinted under its masks, pale outside its crop; over its name, caption and warnings."""
    tinted = tint(to_cell_size(loaded.image / 255).movedim(0, -1), to_cell_size(loaded.masks))
    height, width = tinted.shape[:2]
    left, top, right, bottom = (
        round(edge * length) for edge, length in zip(loaded.framed.crop, (width, height) * 2, strict=True)
    )
    outside = torch.full((height, width), OUTSIDE)
    outside[top:bottom, left:right] = 0
    more = len(picture.captions) - 1
    lines = [
        *caption_lines(picture.captions[0], range(len(picture.subjects))),
        *([[Word(f"and {more} other captions", FAINT)]] if more else []),
    ]
    return cell(to_image(blended(tinted, PAPER, outside)), picture.path, [*lines, *warning_lines(warnings)])


def draw_left_out(remark: Remark) -> Image.Image:
    """A picture that is left out: pale, over its name and the reason."""
    try:
        pixels = to_cell_size(read_image(remark.path)[:3].float() / 255).movedim(0, -1)
        shown = to_image(blended(pixels, PAPER, torch.full(pixels.shape[:2], OUTSIDE)))
    except BadPicture:
        shown = Image.new("RGB", (CELL, CELL), (235, 235, 235))
    drawn = cell(shown, remark.path, warning_lines([f"left out: {remark.text}"]))
    ImageDraw.Draw(drawn).rectangle((1, 1, drawn.width - 2, drawn.height - 2), outline=WRONG)
    return drawn


def to_cell_size(x: Tensor) -> Tensor:
    """To a cell's size, before anything is drawn over it: (C,H,W) -> (C,h,w)."""
    factor = CELL / max(x.shape[-2:])
    size = [max(1, round(length * factor)) for length in x.shape[-2:]]
    return F.interpolate(x[None], size=size, mode="bilinear", antialias=True)[0]


def tint(picture: Tensor, masks: Tensor) -> Tensor:
    """A picture with each mask in its colour: (H,W,3) (S,H,W) in [0,1] -> (H,W,3)."""
    for number, mask in enumerate(masks):
        picture = blended(picture, COLOURS[number % len(COLOURS)], mask * OPACITY)
    return picture


def blended(picture: Tensor, colour: tuple[int, int, int], opacity: Tensor) -> Tensor:
    """A colour over a picture: (H,W,3) in [0,1], (H,W) in [0,1] -> (H,W,3)."""
    return torch.lerp(picture, torch.tensor(colour) / 255, opacity[..., None])


def cell(image: Image.Image, path: Path, lines: Sequence[Sequence[Word]]) -> Image.Image:
    """A picture over its name and these lines of text."""
    small = ImageOps.contain(image, (CELL, CELL))
    drawn = Image.new("RGB", (CELL + 2 * MARGIN, CELL + 2 * MARGIN + LINES * LINE), PAPER)
    drawn.paste(small, (MARGIN + (CELL - small.width) // 2, MARGIN + CELL - small.height))
    pen, y = ImageDraw.Draw(drawn), CELL + MARGIN + 2
    lines = [[Word(shortened(printable(path.name)), FAINT)], *lines]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], [*lines[LINES - 1], Word("…", FAINT)]]
    for line in lines:
        x = MARGIN
        for word in line:
            pen.text((x, y), word.text, fill=word.colour, font=font())
            x += length(word.text + " ")
        y += LINE
    return drawn


@cache
def font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib contains; Pillow's own font has no letters beyond ASCII."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", SIZE - 1)


@lru_cache(2**14)
def length(text: str) -> float:
    """The length of a text in pixels."""
    return font().getlength(text)


def shortened(text: str) -> str:
    """A text cut to the width of a cell."""
    if length(text) <= CELL:
        return text
    while length(text + "…") > CELL:
        text = text[:-1]
    return text + "…"


def caption_lines(caption: Caption, subjects: Sequence[int]) -> list[list[Word]]:
    """A caption, shortened around the words of these subjects, which have the colours of their masks in this order."""
    place, words = 0, []
    colours = {caption.ends[subject]: COLOURS[n % len(COLOURS)] for n, subject in enumerate(subjects)}
    for word in caption.text.split():
        start = caption.text.index(word, place)
        place = start + len(word)
        colour = next((colour for end, colour in colours.items() if start < end <= place), INK)
        words.append(Word(printable(word), colour))
    return wrapped(excerpt(words, lambda part: len(wrapped(part)) <= CAPTION_LINES))


def excerpt(words: list[Word], fits: Callable[[list[Word]], bool]) -> list[Word]:
    """All words, or as many around the coloured ones as fit, with an ellipsis where some are left out."""
    marked = [place for place, word in enumerate(words) if word.colour != INK]
    for reach in range(len(words), -1, -1):
        kept = [n for n in range(len(words)) if any(abs(n - place) <= reach for place in marked)]
        part = list(with_gaps(words, kept))
        if fits(part):
            return part
    return [words[place] for place in marked]


def with_gaps(words: Sequence[Word], kept: Sequence[int]) -> Iterator[Word]:
    """The words at these places, with an ellipsis for each gap."""
    last = -1
    for place in kept:
        if place > last + 1:
            yield Word("…", FAINT)
        yield words[place]
        last = place
    if last < len(words) - 1:
        yield Word("…", FAINT)


def warning_lines(warnings: Sequence[str]) -> list[list[Word]]:
    """Warnings in red."""
    return [line for text in warnings for line in wrapped([Word(w, WRONG) for w in printable(text, 2000).split()])]


def wrapped(words: Sequence[Word]) -> list[list[Word]]:
    """Lines that are no longer than a cell; a longer word is cut."""
    lines: list[list[Word]] = []
    used = CELL + 1.0
    for word in words:
        word = word._replace(text=shortened(word.text))
        if used + length(word.text) > CELL:
            lines.append([])
            used = 0.0
        lines[-1].append(word)
        used += length(word.text + " ")
    return lines
