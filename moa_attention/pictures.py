"""Every sheet and heat map. Pictures are (H,W,3) in [0,1], router maps (h,w) in [0,1].

A cell is one picture, a row holds cells side by side, a column stacks rows, a label is a line of text. Sheets with
labels on white are PIL images; `contact_sheet` and `grid` are tensors, as nodes return them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Dark blue (prior) over violet and orange to pale yellow (personalised): grows in lightness, safe for the colour-blind.
SCALE = torch.tensor(
    [
        [0.05, 0.03, 0.25],
        [0.35, 0.07, 0.45],
        [0.68, 0.20, 0.40],
        [0.93, 0.43, 0.24],
        [0.99, 0.72, 0.26],
        [0.99, 0.98, 0.75],
    ]
)
# The palette of Okabe and Ito (2008), whose colours the colour-blind distinguish; the last is grey.
COLOURS = torch.tensor(
    [
        [0.90, 0.62, 0.00],
        [0.34, 0.71, 0.91],
        [0.00, 0.62, 0.45],
        [0.94, 0.89, 0.26],
        [0.80, 0.47, 0.65],
        [0.84, 0.37, 0.00],
        [0.00, 0.45, 0.70],
        [0.70, 0.70, 0.70],
    ]
)
"""Of subjects, in their order."""
LABEL_HEIGHT = 16
CELL, GAP, CAPTION, HEADING = 224, 6, 22, 30
"""Pixels of a labelled sheet: a cell's side, the gap between cells, the label below a cell, the label above a row."""
INK, PAPER = (30, 30, 30), (255, 255, 255)


def heat_map(values: Tensor) -> Tensor:
    """(H,W) in [0,1] -> (H,W,3): 0 prior, 1 personalised."""
    position = values.clamp(0, 1) * (len(SCALE) - 1)
    low = position.long().clamp(max=len(SCALE) - 2)
    fraction = (position - low)[..., None]
    return SCALE[low] * (1 - fraction) + SCALE[low + 1] * fraction


def overlay(picture: Tensor, values: Tensor, opacity: float = 0.6) -> Tensor:
    """The heat map over a grey copy of the picture: (H,W,3) (H,W) -> (H,W,3)."""
    return grey(picture) * (1 - opacity) + heat_map(values) * opacity


def grey(picture: Tensor) -> Tensor:
    """(H,W,3) -> (H,W,3)."""
    return picture.mean(dim=-1, keepdim=True).expand(-1, -1, 3)


def coloured(picture: Tensor, shares: Tensor, colours: Sequence[int], largest: float, opacity: float = 0.85) -> Tensor:
    """Each subject in its colour over a grey copy of the picture, the more opaque the larger its share: (H,W,3) (S,H,W) -> (H,W,3).

    Args:
        colours: S indices of `COLOURS`, which start again after the last.
        largest: the sum of shares with the full opacity.
    """
    palette = COLOURS[[c % len(COLOURS) for c in colours]]
    shares = opacity * (shares / max(largest, 1e-6)).clamp(0, 1)
    paint = torch.einsum("shw,sc->hwc", shares, palette)
    return grey(picture) * (1 - shares.sum(dim=0).clamp(max=1))[..., None] + paint


def legend(names: Sequence[str], width: int) -> Tensor:
    """Names beside squares of their colours on black, on as many lines as they need: -> (H, width, 3)."""
    size = max(11, width // 36)
    font, line = ImageFont.load_default(size=size), round(1.5 * size)
    places, left, top = [], 0, 0
    for name in names:
        needed = 2 * line + round(font.getlength(name))
        if left and left + needed > width:
            left, top = 0, top + line
        places.append((left, top))
        left += needed
    strip = Image.new("RGB", (width, top + line))
    draw, inset = ImageDraw.Draw(strip), line // 4
    for i, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        colour = tuple(round(255 * float(c)) for c in COLOURS[i % len(COLOURS)])
        draw.rectangle((x + inset, y + inset, x + line - inset, y + line - inset), fill=colour)
        draw.text((x + line + inset, y + line // 2), name, fill=(255, 255, 255), font=font, anchor="lm")
    return torch.from_numpy(np.array(strip)).float() / 255


def smooth_to(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(h,w) -> (H,W), bilinear."""
    return F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def to_mask(values: Tensor, threshold: float) -> Tensor:
    """(H,W) -> (H,W): the soft map stretched to 0..1, or 1 above the threshold."""
    stretched = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-6)
    return stretched if threshold == 0 else (stretched > threshold).float()


def label(text: str, width: int) -> Tensor:
    """A line of text on black: -> (LABEL_HEIGHT, width, 3)."""
    strip = Image.new("RGB", (width, LABEL_HEIGHT))
    ImageDraw.Draw(strip).text((3, 2), text, fill=(255, 255, 255), font=ImageFont.load_default(size=11))
    return torch.from_numpy(np.array(strip)).float() / 255


def contact_sheet(rows: Sequence[tuple[str, Sequence[Tensor]]], columns: Sequence[str], cell: int = 96) -> Tensor:
    """A table of heat maps, one row per layer and one column per step.

    Args:
        rows: (row label, maps (h,w)), as many maps as there are columns.
        columns: column labels.
        cell: width of a map in pixels; its height follows the map's aspect ratio.

    Returns: (H,W,3).
    """
    margin = 8 * max(len(name) for name, _ in rows)
    height = max(LABEL_HEIGHT, round(cell * rows[0][1][0].shape[0] / rows[0][1][0].shape[1]))
    lines = [torch.cat([label("", margin), *(label(c, cell) for c in columns)], dim=1)]
    for name, maps in rows:
        caption = torch.zeros(height, margin, 3)
        caption[:LABEL_HEIGHT] = label(name, margin)
        cells = [F.interpolate(m[None, None], size=(height - 2, cell - 2), mode="nearest")[0, 0] for m in maps]
        framed = [F.pad(heat_map(c), (0, 0, 1, 1, 1, 1)) for c in cells]
        lines.append(torch.cat([caption, *framed], dim=1))
    return torch.cat(lines)


def grid(cells: Tensor) -> Tensor:
    """Cells without gaps or labels: (rows,columns,H,W,3) -> (rows·H, columns·W, 3)."""
    return rearrange(cells, "row column h w rgb -> (row h) (column w) rgb")


def to_image(picture: Tensor, side: int | None = None) -> Image.Image:
    """(H,W,3) in [0,1] -> a PIL image, resized to a square where `side` is given."""
    image = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy())
    return image if side is None else image.resize((side, side), Image.Resampling.LANCZOS)


def row(cells: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Square cells of side CELL with their labels below."""
    sheet = Image.new("RGB", (row_width(len(cells)), CELL + CAPTION), PAPER)
    font = ImageFont.load_default(size=14)
    for i, (text, image) in enumerate(cells):
        left = i * (CELL + GAP)
        sheet.paste(image, (left, 0))
        centre = (left + CELL // 2, CELL + CAPTION // 2)
        ImageDraw.Draw(sheet).text(centre, text, fill=INK, font=font, anchor="mm")
    return sheet


def row_width(cells: int) -> int:
    """Pixels of a row of so many cells."""
    return cells * (CELL + GAP) - GAP


def heading(text: str, cells: int) -> Image.Image:
    """A label above a row of so many cells."""
    strip = Image.new("RGB", (row_width(cells), HEADING), PAPER)
    ImageDraw.Draw(strip).text((4, 22), text, fill=INK, font=ImageFont.load_default(size=16), anchor="ls")
    return strip


def column(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other, aligned left."""
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), PAPER)
    top = 0
    for r in rows:
        sheet.paste(r, (0, top))
        top += r.height
    return sheet


def page(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """Cells of one size in reading order, without gaps, in at most so many columns."""
    width, height = cells[0].size
    columns = min(columns, len(cells))
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), PAPER)
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i % columns * width, i // columns * height))
    return sheet


def with_inset(cell: Image.Image, inset: Image.Image, border: int = 4) -> Image.Image:
    """A cell with a smaller picture in its upper right corner, framed in white below and on the left."""
    cell, left = cell.copy(), cell.width - inset.width
    ImageDraw.Draw(cell).rectangle((left - border, 0, cell.width, inset.height + border - 1), fill=PAPER)
    cell.paste(inset, (left, 0))
    return cell
