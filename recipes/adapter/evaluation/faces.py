"""Faces of a picture, and who they are: found, turned upright, described."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .face_api import (
    CHIP,
    DETECTOR,
    LANDMARKS,
    RECOGNITION,
    Box,
    boxes,
    describe,
    detector_grid,
    landmarks,
    read_weights,
)  # fmt: skip

SEEN, LANDMARK_SIDE, AROUND = 608, 112, 2.0
"""Pixels of the detector's and the landmarks' input; how much wider than its box a face is cut out."""
LEAST = 0.5
"""The detector's score from which something is a face: its authors' choice."""
CORNERS = (36, 39, 42, 45, 33)
"""Outer and inner corners of both eyes, and under the nose, among the 68 landmarks."""
UPRIGHT = ((0.120575, 0.213727), (0.334085, 0.229064), (0.646060, 0.228967), (0.859567, 0.213498), (0.490112, 0.627798))
"""Where dlib's mean face has them, in shares of the face; its chips have a quarter of that around it."""
BORDER = 0.25


class FaceJudge:
    """Descriptors of faces by the networks of `face_api.py`.

    Args: folder: `model` of the unpacked npm package. device: where they compute.
    Raises: FileNotFoundError as `read_weights`.
    """

    SAME = 0.6
    """Two pictures of one person are nearer than this (dlib's own threshold)."""

    def __init__(self, folder: Path, device: torch.device):
        self.detector, self.points, self.recognition = (
            {key: tensor.to(device) for key, tensor in read_weights(folder, name).items()}
            for name in (DETECTOR, LANDMARKS, RECOGNITION)
        )
        self.device = device

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> Tensor:
        """(3,H,W) in [0,1] -> (N,128), the largest face first; (0,128) when there is none."""
        side = max(picture.shape[-2:])
        framed = F.pad(picture.to(self.device), (0, side - picture.shape[-1], 0, side - picture.shape[-2]))
        small = F.interpolate(framed[None], size=(SEEN, SEEN), mode="bilinear", antialias=True)[0]
        found = sorted(boxes(detector_grid(self.detector, small).cpu(), LEAST), key=lambda box: -box.area)
        if not found:
            return torch.zeros(0, 128)
        return describe(self.recognition, torch.cat([self.upright(framed, box) for box in found])).cpu()

    def upright(self, picture: Tensor, box: Box) -> Tensor:
        """Turn and scale a face so that its eyes and nose lie where the recognition expects them: -> (1,3,150,150)."""
        wide = cut(picture, box, AROUND, 2 * CHIP)
        face = cut(picture, box, 1.0, LANDMARK_SIDE)
        within = landmarks(self.points, face)[0, list(CORNERS)].cpu()
        places = (within - 0.5) / AROUND + 0.5  # in shares of the wide cut
        wanted = (torch.tensor(UPRIGHT) + BORDER) / (1 + 2 * BORDER)
        matrix = similarity(2 * wanted - 1, 2 * places - 1).to(self.device)
        grid = F.affine_grid(matrix[None], [1, 3, CHIP, CHIP], align_corners=False)
        return F.grid_sample(wide, grid, align_corners=False)


def cut(picture: Tensor, box: Box, around: float, side: int) -> Tensor:
    """A square about the middle of a box, black where it leaves the picture: -> (1,3,side,side).

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


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The rotation, scale and shift that takes points (N,2) nearest to others, least squares: -> (2,3)."""
    z, w = torch.view_as_complex(source.contiguous()), torch.view_as_complex(target.contiguous())
    dz, dw = z - z.mean(), w - w.mean()
    turn = (dz.conj() * dw).sum() / dz.abs().square().sum()
    shift = w.mean() - turn * z.mean()
    a, b = float(turn.real), float(turn.imag)
    return torch.tensor([[a, -b, float(shift.real)], [b, a, float(shift.imag)]])
