"""Face detection with OpenCV, if the user's Python has it, and the cascade of frontal faces inside its package.

Optional, and never downloaded. OpenCV is under Apache-2.0, the cascade under Intel's BSD-like licence: free for any use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ....moa_attention.subjects.crop import PixelBox

CASCADE = "haarcascade_frontalface_alt.xml"
MAX_SIDE = 1024
"""Pixels of the longer side to which larger pictures are reduced first: a face worth cropping is large enough there."""
MIN_FACE = 0.04
"""Smallest face as a share of the longer side: smaller detections are mostly wrong."""
NEIGHBOURS = 8
"""Overlapping detections that count as a face: on six group photographs with 22 faces, 14 are found, and one false one."""

FaceDetector = Callable[[Tensor], list[PixelBox]]
"""A picture (H,W,3) in [0,1] -> its faces."""


def face_detector() -> FaceDetector | None:
    """The face detector of this Python; None without one."""
    try:
        import cv2
    except ImportError:
        return None
    # OpenCV 5 has cascades in some of its contrib packages only, and builds of a Linux distribution have no `data`.
    file = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / CASCADE
    if not hasattr(cv2, "CascadeClassifier") or not file.is_file():
        return None
    cascade = cv2.CascadeClassifier(str(file))
    return None if cascade.empty() else lambda picture: detect_faces(cv2, cascade, picture)


def detect_faces(cv2: Any, cascade: Any, picture: Tensor) -> list[PixelBox]:
    """Frontal faces of a picture (H,W,3) in [0,1]."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    longer = max(grey.shape)
    scale = min(1.0, MAX_SIDE / longer)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = round(MIN_FACE * longer * scale)
    found = cascade.detectMultiScale(grey, minNeighbors=NEIGHBOURS, minSize=(smallest, smallest))
    return [PixelBox(*(float(number) / scale for number in face)) for face in found]
