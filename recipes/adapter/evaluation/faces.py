"""Descriptors of the faces in a picture: found, turned upright, described."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ....moa_attention.subjects.align import similarity
from .face_api import (
    CHIP,
    DETECTOR,
    LANDMARKS,
    RECOGNITION,
    FaceBox,
    boxes,
    descriptors,
    detector_grid,
    landmarks,
    read_network,
)  # fmt: skip

DETECTOR_SIDE, LANDMARK_SIDE, AROUND = 608, 112, 2.0
"""Pixels of the detector's and the landmarks' input; how much wider than its box a face is cut out."""
LEAST = 0.5
"""Smallest score of a face, as the detector's authors choose it."""
CORNERS = (36, 39, 42, 45, 33)
"""Outer and inner corners of both eyes, and under the nose, among the 68 landmarks."""
UPRIGHT = ((0.120575, 0.213727), (0.334085, 0.229064), (0.646060, 0.228967), (0.859567, 0.213498), (0.490112, 0.627798))
"""Their positions in dlib's mean face, in shares of the face; its chips have a border of a quarter of the face."""
BORDER = 0.25


class FaceEvaluator:
    """Descriptors of faces by the networks of `face_api.py`.

    Args: folder: `model` of the unpacked npm package. device: of their arithmetic.
    Raises: FileNotFoundError as `read_network`.
    """

    SAME = 0.6
    """Two pictures of one person are nearer than this (dlib's own threshold)."""

    def __init__(self, folder: Path, device: torch.device):
        self.detector, self.points, self.recognition = (
            {key: tensor.to(device) for key, tensor in read_network(folder, name).items()}
            for name in (DETECTOR, LANDMARKS, RECOGNITION)
        )
        self.device = device

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> Tensor:
        """(3,H,W) in [0,1] -> (N,128), the largest face first; (0,128) when there is none."""
        side = max(picture.shape[-2:])
        framed = F.pad(picture.to(self.device), (0, side - picture.shape[-1], 0, side - picture.shape[-2]))
        small = F.interpolate(framed[None], size=(DETECTOR_SIDE, DETECTOR_SIDE), mode="bilinear", antialias=True)[0]
        found = sorted(boxes(detector_grid(self.detector, small).cpu(), LEAST), key=lambda box: -box.area)
        if not found:
            return torch.zeros(0, 128)
        return descriptors(self.recognition, torch.cat([self.upright(framed, box) for box in found])).cpu()

    def upright(self, picture: Tensor, box: FaceBox) -> Tensor:
        """Turn and scale a face so that its eyes and nose are at the positions that the recognition network expects: -> (1,3,150,150)."""
        wide = cut_face(picture, box, AROUND, 2 * CHIP)
        face = cut_face(picture, box, 1.0, LANDMARK_SIDE)
        within = landmarks(self.points, face)[0, list(CORNERS)].cpu()
        points = (within - 0.5) / AROUND + 0.5  # in shares of the wide cut
        wanted = (torch.tensor(UPRIGHT) + BORDER) / (1 + 2 * BORDER)
        matrix = similarity(2 * wanted - 1, 2 * points - 1).to(self.device)
        grid = F.affine_grid(matrix[None], [1, 3, CHIP, CHIP], align_corners=False)
        return F.grid_sample(wide, grid, align_corners=False)


def cut_face(picture: Tensor, box: FaceBox, around: float, side: int) -> Tensor:
    """A square about the middle of a box, black outside the picture: -> (1,3,side,side).

    Args: picture: square, (3,N,N). around: how much larger than the box's longer side.
    """
    pixels = picture.shape[-1]
    half = max(1, round(max(box.right - box.left, box.bottom - box.top) * around * pixels / 2))
    x, y = (round((a + b) / 2 * pixels) for a, b in ((box.left, box.right), (box.top, box.bottom)))
    framed = F.pad(picture, (half, half, half, half))
    x, y = min(max(x, 0), pixels), min(max(y, 0), pixels)
    return F.interpolate(
        framed[None, :, y : y + 2 * half, x : x + 2 * half], size=(side, side), mode="bilinear", antialias=True
    )
