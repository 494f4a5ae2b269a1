"""Masks in the shapes that nodes of the host and of other packs give."""

from __future__ import annotations

import pytest
import torch

from moa_attention.subjects.masks import as_masks


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 5), (1, 3, 5)), ((1, 3, 5), (1, 3, 5)), ((2, 3, 5), (2, 3, 5)), ((2, 1, 3, 5), (2, 3, 5)), ((1, 1, 3, 5), (1, 3, 5))],
    ids=str,
)  # fmt: skip
def test_every_shape_of_a_mask_becomes_one(shape: tuple[int, ...], expected: tuple[int, ...]):
    mask = torch.rand(shape).round().bool()
    masks = as_masks(mask, "Crop Subject (MoA)")
    assert masks.shape == expected and masks.dtype == torch.float32
    assert torch.equal(masks.flatten(), mask.flatten().float())


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4, 5), (1, 1, 1, 4, 5), (0, 4, 4), (1, 0, 4)], ids=str)
def test_what_is_no_mask_is_refused_by_the_nodes_title(shape: tuple[int, ...]):
    with pytest.raises(
        ValueError, match=r"'Crop Subject \(MoA\)' expects a mask of height × width.*at 'region'.*received"
    ):
        as_masks(torch.zeros(shape), "Crop Subject (MoA)", "region")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_mask_that_is_no_numbers_is_refused(value: float):
    """As a region it would give shares that are no numbers, in all of the picture."""
    mask = torch.ones(4, 4)
    as_masks(mask, "Subject Settings (MoA)", "region")
    mask[1, 2] = value
    with pytest.raises(
        ValueError, match=r"'Subject Settings \(MoA\)' received a mask with NaN or infinity at 'region'"
    ):
        as_masks(mask, "Subject Settings (MoA)", "region")
