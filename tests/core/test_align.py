"""Faces brought upright: landmarks onto landmarks."""

import math

import torch

from moa_attention.align import EXTENT, TEMPLATE, align, similarity


def turned(points: torch.Tensor, angle: float, scale: float, shift: tuple[float, float]) -> torch.Tensor:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return points @ torch.tensor([[c, s], [-s, c]]) + torch.tensor(shift)


def test_a_turn_a_scale_and_a_shift_are_found_exactly():
    side = 224
    square = TEMPLATE * side / EXTENT
    there = turned(square, 0.4, 1.7, (30.0, -12.0))
    ours = torch.cat((square, torch.ones(5, 1)), dim=1) @ similarity(there, side).T
    torch.testing.assert_close(ours, there, rtol=1e-4, atol=1e-3)


def test_landmarks_that_are_no_face_of_the_template_are_met_as_nearly_as_can_be():
    torch.manual_seed(0)
    there = TEMPLATE + torch.randn(5, 2)
    found = similarity(there, EXTENT)

    def error(matrix: torch.Tensor) -> float:
        return float((torch.cat((TEMPLATE, torch.ones(5, 1)), dim=1) @ matrix.T - there).square().sum())

    assert all(
        error(found) <= error(found + 1e-3 * torch.tensor([[a, -b, x], [b, a, y]])) for a, b, x, y in torch.randn(20, 4)
    )


def test_the_cut_shows_what_lies_under_the_landmarks():
    height, width, side = 120, 200, 112
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    picture = torch.stack((x / width, y / height, torch.ones_like(x)), dim=-1)  # every pixel says where it is
    there = turned(TEMPLATE, 0.3, 0.6, (60.0, 20.0))
    cut = align(picture, there, side)
    for (column, row), (px, py) in zip(
        TEMPLATE.round().int().tolist(), turned(TEMPLATE.round(), 0.3, 0.6, (60.0, 20.0)).tolist(), strict=True
    ):
        torch.testing.assert_close(cut[row, column, :2], torch.tensor([px / width, py / height]), rtol=0, atol=2e-3)
    assert align(picture, TEMPLATE - 500, side).abs().max() == 0
