"""Faces by what may lie in the user's Python already: OpenCV and the cascade of frontal faces that comes inside its package.

Never required, never fetched. OpenCV is Apache-2.0, the cascade under Intel's BSD-like licence: free for any use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..moa_attention.crop import Box

CASCADE = "haarcascade_frontalface_alt.xml"
LONGEST = 1024
"""Pixels to which a larger picture is reduced first: a face worth cropping is large enough there."""
SMALLEST = 0.04
"""Of the longer side: smaller finds are mostly none."""
NEIGHBOURS = 8
"""Overlapping finds that make a face: of 22 in six group photographs 14 are found, and one thing that is none."""

Detect = Callable[[torch.Tensor], list[Box]]
"""A picture (H,W,3) in [0,1] -> its faces."""


def face_detector() -> Detect | None:
    """What finds faces in this Python; None when nothing does."""
    try:
        import cv2
    except ImportError:
        return None
    # OpenCV 5 has cascades in some of its contrib packages only, and builds of a Linux distribution have no `data`.
    file = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / CASCADE
    if not hasattr(cv2, "CascadeClassifier") or not file.is_file():
        return None
    cascade = cv2.CascadeClassifier(str(file))
    return None if cascade.empty() else lambda picture: detect(cv2, cascade, picture)


def detect(cv2: Any, cascade: Any, picture: torch.Tensor) -> list[Box]:
    """Frontal faces of a picture (H,W,3) in [0,1]."""
    pixels = (picture[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    longer = max(grey.shape)
    scale = min(1.0, LONGEST / longer)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = round(SMALLEST * longer * scale)
    found = cascade.detectMultiScale(grey, minNeighbors=NEIGHBOURS, minSize=(smallest, smallest))
    return [Box(*(float(number) / scale for number in face)) for face in found]
