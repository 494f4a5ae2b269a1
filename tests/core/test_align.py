"""Face alignment: landmarks of an image onto those of the template."""

import math

import pytest
import torch

from moa_attention.subjects.align import TEMPLATE, TEMPLATE_SIDE, align, similarity


def turned(points: torch.Tensor, angle: float, scale: float, shift: tuple[float, float]) -> torch.Tensor:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return points @ torch.tensor([[c, s], [-s, c]]) + torch.tensor(shift)


def test_a_rotation_a_scale_and_a_shift_are_recovered():
    side = 224
    square = TEMPLATE * side / TEMPLATE_SIDE
    there = turned(square, 0.4, 1.7, (30.0, -12.0))
    mapped = torch.cat((square, torch.ones(5, 1)), dim=1) @ similarity(square, there).T
    torch.testing.assert_close(mapped, there, rtol=1e-4, atol=1e-3)


def test_other_landmarks_are_fitted_in_least_squares():
    torch.manual_seed(0)
    there = TEMPLATE + torch.randn(5, 2)
    found = similarity(TEMPLATE, there)

    def error(matrix: torch.Tensor) -> float:
        return float((torch.cat((TEMPLATE, torch.ones(5, 1)), dim=1) @ matrix.T - there).square().sum())

    assert all(
        error(found) <= error(found + 1e-3 * torch.tensor([[a, -b, x], [b, a, y]])) for a, b, x, y in torch.randn(20, 4)
    )


def test_the_aligned_face_is_that_of_insightface():
    """Its norm_crop: the template at twice its size, and OpenCV's affine warp, black outside."""
    cv2 = pytest.importorskip("cv2")
    y, x = torch.meshgrid(torch.arange(150).float(), torch.arange(200).float(), indexing="ij")
    picture = torch.stack([(x / 9).sin(), (y / 7).cos(), ((x + y) / 11).sin()], dim=-1) / 2 + 0.5
    landmarks = turned(TEMPLATE, -0.25, 0.8, (40.0, 25.0)) + torch.randn(
        5, 2, generator=torch.Generator().manual_seed(1)
    )
    matrix = similarity(landmarks, 2 * TEMPLATE).numpy()
    published = torch.from_numpy(cv2.warpAffine(picture.numpy(), matrix, (224, 224), borderValue=0.0))
    assert (align(picture, landmarks, 224) - published).abs().mean() < 1e-3


def test_the_aligned_face_holds_the_pixels_under_the_landmarks():
    height, width, side = 120, 200, 112
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    picture = torch.stack((x / width, y / height, torch.ones_like(x)), dim=-1)  # every pixel holds its own position
    there = turned(TEMPLATE, 0.3, 0.6, (60.0, 20.0))
    cut = align(picture, there, side)
    for (column, row), (px, py) in zip(
        TEMPLATE.round().int().tolist(), turned(TEMPLATE.round(), 0.3, 0.6, (60.0, 20.0)).tolist(), strict=True
    ):
        torch.testing.assert_close(cut[row, column, :2], torch.tensor([px / width, py / height]), rtol=0, atol=2e-3)
    assert align(picture, TEMPLATE - 500, side).abs().max() == 0
