"""Router maps as pictures: heat maps, overlays, contact sheets. Tensors in, tensors out; H×W×3 in [0,1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
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
LABEL_HEIGHT = 16


def heat_map(values: Tensor) -> Tensor:
    """(H,W) in [0,1] -> (H,W,3): 0 prior, 1 personalised."""
    place = values.clamp(0, 1) * (len(SCALE) - 1)
    low = place.long().clamp(max=len(SCALE) - 2)
    fraction = (place - low)[..., None]
    return SCALE[low] * (1 - fraction) + SCALE[low + 1] * fraction


def overlay(picture: Tensor, values: Tensor, opacity: float = 0.6) -> Tensor:
    """The heat map over a grey copy of the picture: (H,W,3) (H,W) -> (H,W,3)."""
    grey = picture.mean(dim=-1, keepdim=True).expand(-1, -1, 3)
    return grey * (1 - opacity) + heat_map(values) * opacity


def smooth_to(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(h,w) -> (H,W), bilinear."""
    return F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


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
