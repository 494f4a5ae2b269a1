"""Pictures in rows over captions, rows below each other, on white."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL, GAP, CAPTION = 224, 6, 22
INK, SHEET = (30, 30, 30), (255, 255, 255)


def to_image(picture: Tensor, size: int = CELL) -> Image.Image:
    """(3,H,W) in [0,1] -> a square picture."""
    array = (picture.movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
    return Image.fromarray(array).resize((size, size), Image.Resampling.LANCZOS)


def row(cells: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures side by side, each over its caption."""
    sheet = Image.new("RGB", (len(cells) * (CELL + GAP) - GAP, CELL + CAPTION), SHEET)
    font = ImageFont.load_default(size=14)
    for i, (text, picture) in enumerate(cells):
        sheet.paste(picture, (i * (CELL + GAP), 0))
        place = (i * (CELL + GAP) + CELL // 2, CELL + CAPTION // 2)
        ImageDraw.Draw(sheet).text(place, text, fill=INK, font=font, anchor="mm")
    return sheet


def column(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other."""
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), SHEET)
    for i, r in enumerate(rows):
        sheet.paste(r, (0, sum(above.height for above in rows[:i])))
    return sheet
