"""A face turned upright and brought to the place where face recognisers expect it: five landmarks onto five."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPLATE = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose and corners of the mouth in a face of 112 × 112 pixels, as ArcFace (arXiv 1801.07698) has them."""
EXTENT = 112


def similarity(landmarks: Tensor, side: int) -> Tensor:
    """The turn, scale and shift that bring a square of `side` pixels to a picture, best in least squares (ours).

    (5,2) landmarks as (x, y) -> (2,3), which maps (x, y, 1) of the square to (x, y) of the picture.
    """
    x, y = (TEMPLATE * side / EXTENT).unbind(-1)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.cat((torch.stack((x, -y, one, none), dim=-1), torch.stack((y, x, none, one), dim=-1)))
    wanted = torch.cat((landmarks[:, 0], landmarks[:, 1])).float()
    a, b, right, down = torch.linalg.lstsq(rows, wanted[:, None]).solution[:, 0]
    return torch.stack((torch.stack((a, -b, right)), torch.stack((b, a, down))))


def align(picture: Tensor, landmarks: Tensor, side: int) -> Tensor:
    """Cut a face out of a picture: (H,W,3), (5,2) in pixels as (x, y) -> (side,side,3); black beyond the picture."""
    h, w, _ = picture.shape
    y, x = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    where = torch.stack((x, y, torch.ones_like(x)), dim=-1) @ similarity(landmarks, side).T
    grid = (2 * where + 1) / torch.tensor([w, h]) - 1  # pixel centres, as grid_sample counts without aligned corners
    sampled = F.grid_sample(picture.movedim(-1, 0)[None].float(), grid[None], mode="bilinear", align_corners=False)
    return sampled[0].movedim(0, -1)
