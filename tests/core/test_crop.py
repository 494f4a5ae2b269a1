"""Which box of a picture, the square around it, and the regions of a mask: exact pixels."""

import pytest
import torch

from moa_attention.crop import SIDE, Box, Order, choose, one_size, window
from moa_attention.reference import GREY
from moa_attention.regions import regions

LEFT, LARGE, RIGHT = Box(5, 50, 10, 10), Box(30, 0, 40, 40), Box(90, 20, 20, 10)


@pytest.mark.parametrize(
    ("order", "expected"), [("largest first", [LARGE, RIGHT, LEFT]), ("left to right", [LEFT, LARGE, RIGHT])]
)
def test_boxes_are_counted_from_one(order: Order, expected: list[Box]):
    for boxes in ([LARGE, RIGHT, LEFT], [RIGHT, LEFT, LARGE]):
        assert [choose(boxes, order, index) for index in (1, 2, 3, 4)] == [*expected, None]
    assert choose([], order, 1) is None


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        (Box(50, 40, 20, 20), 0.0, (40, 60), (50, 70)),
        (Box(50, 40, 20, 20), 0.5, (30, 70), (40, 80)),
        (Box(50, 40, 20, 10), 0.0, (35, 55), (50, 70)),  # square around the longer side
        (Box(0, 0, 20, 20), 0.5, (0, 40), (0, 40)),  # shifted, not cut
        (Box(180, 80, 20, 20), 0.5, (60, 100), (160, 200)),
        (Box(90, 40, 20, 20), 9.0, (0, 100), (50, 150)),  # the margin gives way
        (Box(20, 40, 150, 20), 1.0, (0, 100), (20, 170)),  # nothing of the box is lost
        (Box(-40, -40, 60, 60), 0.0, (0, 60), (0, 60)),  # reaches beyond the picture
        (Box(-50, -50, 400, 300), 0.2, (0, 100), (0, 200)),
        (Box(60.4, 30.6, 0.01, 0.01), 0.0, (30, 31), (60, 61)),  # never empty
    ],
)
def test_the_square_around_a_box(box: Box, margin: float, rows: tuple[int, int], columns: tuple[int, int]):
    assert window(box, margin, 100, 200) == (slice(*rows), slice(*columns))


@pytest.mark.parametrize(
    ("box", "inside"),
    [(Box(-5, -5, 6, 6), True), (Box(-5, 0, 5, 5), False), (Box(0, 100, 9, 9), False), (Box(9, 9, 0, 5), False)],
)
def test_boxes_beside_the_picture_do_not_count(box: Box, inside: bool):
    assert box.within(100, 200) is inside


def test_a_single_crop_keeps_its_pixels():
    crop = torch.rand(40, 40, 3)
    assert torch.equal(one_size([crop])[0], crop)


def test_crops_share_the_side_of_the_largest_up_to_a_limit():
    small, large, huge = torch.rand(20, 20, 3), torch.rand(50, 50, 3), torch.rand(700, 700, 3)
    both = one_size([small, large])
    assert both.shape == (2, 50, 50, 3) and torch.equal(both[1], large)
    assert one_size([small, huge]).shape == (2, SIDE, SIDE, 3)
    assert one_size([]).shape == (0, SIDE, SIDE, 3)


def test_what_is_not_square_is_padded_with_grey():
    padded = one_size([torch.ones(20, 40, 3)])
    assert padded.shape == (1, 40, 40, 3)
    assert torch.all(padded[0, 10:30] == 1) and torch.all(padded[0, :10] == GREY) and torch.all(padded[0, 30:] == GREY)


def test_each_region_of_a_mask_has_its_box():
    mask = torch.zeros(60, 80)
    mask[5:15, 10:30] = 1
    mask[40:60, 70:80] = 0.9
    mask[20:30, 0:5] = 0.4  # below one half
    assert sorted(regions(mask)) == [Box(10, 5, 20, 10), Box(70, 40, 10, 20)]
    assert regions(torch.zeros(10, 10)) == []
    assert regions(torch.ones(10, 12)) == [Box(0, 0, 12, 10)]


def test_touching_corners_connect_and_a_gap_does_not():
    corner = torch.zeros(8, 8)
    corner[0:4, 0:4] = corner[4:8, 4:8] = 1
    assert regions(corner) == [Box(0, 0, 8, 8)]
    corner[3, 3] = corner[4, 4] = 0
    assert sorted(regions(corner)) == [Box(0, 0, 4, 4), Box(4, 4, 4, 4)]


@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_a_ring_and_a_spiral_are_one_region_and_what_they_enclose_is_another(turned: int):
    ring = torch.zeros(30, 30)
    ring[2:28, 2:28], ring[4:26, 4:26], ring[12:18, 12:18] = 1, 0, 1
    assert sorted(regions(ring.rot90(turned))) == [Box(2, 2, 26, 26), Box(12, 12, 6, 6)]
    spiral = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 0, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    assert regions(spiral.rot90(turned)) == [Box(0, 0, 5, 5)]


def test_regions_are_those_that_filling_finds():
    """Against the plainest method: spread each label to its neighbours until nothing changes."""
    mask = (torch.rand(24, 24, generator=torch.Generator().manual_seed(4)) > 0.62).float()
    labels = (torch.arange(1, mask.numel() + 1).view_as(mask) * mask)[None]
    while not torch.equal(labels, spread := torch.nn.functional.max_pool2d(labels, 3, 1, 1) * mask):
        labels = spread
    boxes = []
    for label in labels[labels > 0].unique():
        rows, columns = (labels[0] == label).nonzero().unbind(1)
        x, y = int(columns.min()), int(rows.min())
        boxes.append(Box(x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y))
    largest = max(box.area for box in boxes)
    assert len(boxes) > 5
    assert sorted(regions(mask)) == sorted(box for box in boxes if box.area >= largest / 100)


def test_specks_are_left_out():
    mask = torch.zeros(100, 100)
    mask[10:60, 10:60] = 1
    mask[80, 80] = 1
    assert regions(mask) == [Box(10, 10, 50, 50)]
