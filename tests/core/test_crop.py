"""The selected box of a picture, the square around it, and the regions of a mask: exact pixels."""

import pytest
import torch

from moa_attention.subjects.crop import MAX_SIDE, BoxOrder, PixelBox, select_box, square_around, stack_crops
from moa_attention.subjects.reference import GREY
from moa_attention.subjects.regions import regions

LEFT, LARGE, RIGHT = PixelBox(5, 50, 10, 10), PixelBox(30, 0, 40, 40), PixelBox(90, 20, 20, 10)


@pytest.mark.parametrize(
    ("order", "expected"), [("largest first", [LARGE, RIGHT, LEFT]), ("left to right", [LEFT, LARGE, RIGHT])]
)
def test_boxes_are_counted_from_one(order: BoxOrder, expected: list[PixelBox]):
    for boxes in ([LARGE, RIGHT, LEFT], [RIGHT, LEFT, LARGE]):
        assert [select_box(boxes, order, index) for index in (1, 2, 3, 4)] == [*expected, None]
    assert select_box([], order, 1) is None


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        (PixelBox(50, 40, 20, 20), 0.0, (40, 60), (50, 70)),
        (PixelBox(50, 40, 20, 20), 0.5, (30, 70), (40, 80)),
        (PixelBox(50, 40, 20, 10), 0.0, (35, 55), (50, 70)),  # square around the longer side
        (PixelBox(0, 0, 20, 20), 0.5, (0, 40), (0, 40)),  # shifted, not cut
        (PixelBox(180, 80, 20, 20), 0.5, (60, 100), (160, 200)),
        (PixelBox(90, 40, 20, 20), 9.0, (0, 100), (50, 150)),  # the margin shrinks
        (PixelBox(20, 40, 150, 20), 1.0, (0, 100), (20, 170)),  # nothing of the box is lost
        (PixelBox(-40, -40, 60, 60), 0.0, (0, 60), (0, 60)),  # reaches beyond the picture
        (PixelBox(-50, -50, 400, 300), 0.2, (0, 100), (0, 200)),
        (PixelBox(60.4, 30.6, 0.01, 0.01), 0.0, (30, 31), (60, 61)),  # never empty
    ],
)
def test_the_square_around_a_box(box: PixelBox, margin: float, rows: tuple[int, int], columns: tuple[int, int]):
    assert square_around(box, margin, 100, 200) == (slice(*rows), slice(*columns))


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        (PixelBox(-5, -5, 6, 6), True),
        (PixelBox(-5, 0, 5, 5), False),
        (PixelBox(0, 100, 9, 9), False),
        (PixelBox(9, 9, 0, 5), False),
    ],
)
def test_boxes_beside_the_picture_do_not_overlap_it(box: PixelBox, inside: bool):
    assert box.overlaps(100, 200) is inside


def test_a_single_crop_keeps_its_pixels():
    crop = torch.rand(40, 40, 3)
    assert torch.equal(stack_crops([crop])[0], crop)


def test_crops_share_the_side_of_the_largest_up_to_a_limit():
    small, large, huge = torch.rand(20, 20, 3), torch.rand(50, 50, 3), torch.rand(700, 700, 3)
    both = stack_crops([small, large])
    assert both.shape == (2, 50, 50, 3) and torch.equal(both[1], large)
    assert stack_crops([small, huge]).shape == (2, MAX_SIDE, MAX_SIDE, 3)
    assert stack_crops([]).shape == (0, MAX_SIDE, MAX_SIDE, 3)


def test_a_crop_that_is_not_square_is_padded_with_grey():
    padded = stack_crops([torch.ones(20, 40, 3)])
    assert padded.shape == (1, 40, 40, 3)
    assert torch.all(padded[0, 10:30] == 1) and torch.all(padded[0, :10] == GREY) and torch.all(padded[0, 30:] == GREY)


def test_each_region_of_a_mask_has_its_box():
    mask = torch.zeros(60, 80)
    mask[5:15, 10:30] = 1
    mask[40:60, 70:80] = 0.9
    mask[20:30, 0:5] = 0.4  # below one half
    assert sorted(regions(mask)) == [PixelBox(10, 5, 20, 10), PixelBox(70, 40, 10, 20)]
    assert regions(torch.zeros(10, 10)) == []
    assert regions(torch.ones(10, 12)) == [PixelBox(0, 0, 12, 10)]


def test_touching_corners_connect_and_a_gap_does_not():
    corner = torch.zeros(8, 8)
    corner[0:4, 0:4] = corner[4:8, 4:8] = 1
    assert regions(corner) == [PixelBox(0, 0, 8, 8)]
    corner[3, 3] = corner[4, 4] = 0
    assert sorted(regions(corner)) == [PixelBox(0, 0, 4, 4), PixelBox(4, 4, 4, 4)]


@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_a_ring_and_a_spiral_are_one_region_and_the_area_inside_is_another(turned: int):
    ring = torch.zeros(30, 30)
    ring[2:28, 2:28], ring[4:26, 4:26], ring[12:18, 12:18] = 1, 0, 1
    assert sorted(regions(ring.rot90(turned))) == [PixelBox(2, 2, 26, 26), PixelBox(12, 12, 6, 6)]
    spiral = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 0, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    assert regions(spiral.rot90(turned)) == [PixelBox(0, 0, 5, 5)]


def test_regions_equal_those_of_flood_filling():
    """The plainest method: spread each label to its neighbours until nothing changes."""
    mask = (torch.rand(24, 24, generator=torch.Generator().manual_seed(4)) > 0.62).float()
    labels = (torch.arange(1, mask.numel() + 1).view_as(mask) * mask)[None]
    while not torch.equal(labels, spread := torch.nn.functional.max_pool2d(labels, 3, 1, 1) * mask):
        labels = spread
    boxes = []
    for label in labels[labels > 0].unique():
        rows, columns = (labels[0] == label).nonzero().unbind(1)
        x, y = int(columns.min()), int(rows.min())
        boxes.append(PixelBox(x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y))
    largest = max(box.area for box in boxes)
    assert len(boxes) > 5
    assert sorted(regions(mask)) == sorted(box for box in boxes if box.area >= largest / 100)


def test_specks_are_left_out():
    mask = torch.zeros(100, 100)
    mask[10:60, 10:60] = 1
    mask[80, 80] = 1
    assert regions(mask) == [PixelBox(10, 10, 50, 50)]
