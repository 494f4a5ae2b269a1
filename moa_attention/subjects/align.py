"""Face alignment: five landmarks are brought to the positions at which face recognisers expect them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

TEMPLATE = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose and corners of the mouth in a face of `TEMPLATE_SIDE` pixels, as ArcFace (arXiv 1801.07698) defines them."""
TEMPLATE_SIDE = 112


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The rotation, scale and shift that bring points closest to others in least squares.

    In closed form (Umeyama 1991, without reflections): with points as complex numbers, target ≈ turn · source + shift.
    (N,2) and (N,2) float32 as (x, y) -> (2,3), which maps (x, y, 1) of the source to (x, y) of the target.
    """
    z, w = torch.view_as_complex(source.contiguous()), torch.view_as_complex(target.contiguous())
    dz, dw = z - z.mean(), w - w.mean()
    turn = (dz.conj() * dw).sum() / dz.abs().square().sum()
    shift = w.mean() - turn * z.mean()
    a, b = turn.real, turn.imag
    return torch.stack((torch.stack((a, -b, shift.real)), torch.stack((b, a, shift.imag))))


def align(image: Tensor, landmarks: Tensor, side: int) -> Tensor:
    """Cut an upright face out of an image.

    Args:
        image: (H,W,3).
        landmarks: (5,2) in pixels as (x, y), in the order of `TEMPLATE`.

    Returns: (side,side,3); black beyond the image.
    """
    h, w, _ = image.shape
    y, x = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    to_face = similarity(landmarks.float(), TEMPLATE * side / TEMPLATE_SIDE)
    to_image = torch.linalg.inv(torch.cat((to_face, torch.tensor([[0.0, 0.0, 1.0]]))))[:2]
    pixels = torch.stack((x, y, torch.ones_like(x)), dim=-1) @ to_image.T  # (side,side,2)
    grid = (2 * pixels + 1) / torch.tensor([w, h]) - 1  # pixel centres, as grid_sample counts without aligned corners
    batch = rearrange(image, "h w c -> 1 c h w").float()
    face = F.grid_sample(batch, grid[None], mode="bilinear", align_corners=False)
    return rearrange(face, "1 c h w -> h w c")
