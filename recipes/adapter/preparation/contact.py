"""Contact sheets of a training set: every picture with its masks in colours and its caption, the subjects' words in the same."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from ....moa_attention.training.data.pictures import Picture

COLUMNS, ROWS = 5, 4
CELL, MARGIN, LINES = 240, 8, 4
"""Pixels of a picture's side, pixels around it, lines of text under it."""
SIZE = 13
INK, FAINT, PAPER = (30, 30, 30), (130, 130, 130), (255, 255, 255)
COLOURS = [(214, 69, 65), (31, 119, 180), (44, 140, 60), (148, 85, 180)]
OPACITY = 0.45


def write_sheets(pictures: Iterable[tuple[Picture, np.ndarray, Tensor]], folder: Path) -> int:
    """Write `contact_001.jpg` and so on; sheets of a run before go away. Returns: how many pictures there were.

    Args: pictures: with their pixels (H,W,3) uint8 and their subjects' masks (S,H,W) in [0,1].
    """
    for old in folder.glob("contact_*.jpg"):
        old.unlink()
    count, cells = 0, []
    for picture, pixels, masks in pictures:
        cells.append(draw_cell(picture, pixels, masks))
        count += 1
        if len(cells) == COLUMNS * ROWS:
            write_sheet(cells, folder / f"contact_{count // len(cells):03}.jpg")
            cells = []
    if cells:
        write_sheet(cells, folder / f"contact_{count // (COLUMNS * ROWS) + 1:03}.jpg")
    return count


def write_sheet(cells: list[Image.Image], path: Path) -> None:
    """Cells in rows."""
    width, height = cells[0].size
    columns = min(COLUMNS, len(cells))
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), PAPER)
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % columns * width, place // columns * height))
    sheet.save(path, quality=88)


def draw_cell(picture: Picture, pixels: np.ndarray, masks: Tensor) -> Image.Image:
    """One picture, tinted where its subjects are, over its name and caption."""
    tinted = pixels.astype(np.float32)
    for number, mask in enumerate(masks.numpy()):
        opacity = mask[..., None] * OPACITY
        tinted = tinted * (1 - opacity) + np.array(COLOURS[number % len(COLOURS)], np.float32) * opacity
    small = ImageOps.contain(Image.fromarray(tinted.round().astype(np.uint8)), (CELL, CELL))
    line = SIZE + 4
    cell = Image.new("RGB", (CELL + 2 * MARGIN, CELL + 2 * MARGIN + LINES * line), PAPER)
    cell.paste(small, (MARGIN + (CELL - small.width) // 2, MARGIN + CELL - small.height))
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(size=SIZE)
    x, y = MARGIN, CELL + MARGIN + 2
    draw.text((x, y), picture.path.name, fill=FAINT, font=font)
    y += line
    for word, colour in coloured_words(picture):
        length = draw.textlength(word + " ", font)
        if x + length > CELL + MARGIN:
            x, y = MARGIN, y + line
        draw.text((x, y), word, fill=colour, font=font)
        x += length
    return cell


def coloured_words(picture: Picture) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """The caption's words, those of subjects in the colours of their masks."""
    place = 0
    for word in picture.caption.split():
        place = picture.caption.index(word, place) + len(word)
        owner = next((n for n, s in enumerate(picture.subjects) if place - len(word) < s.end <= place), None)
        yield word, INK if owner is None else COLOURS[owner % len(COLOURS)]
