"""What a row shows is read from the numbers of its pixels, however the latents were cut."""

from __future__ import annotations

import pytest
import torch

from moa_attention.run.view import View, pixel_numbers, read_views

FULL = (6, 9)
NUMBERS = pixel_numbers(3, *FULL)


def test_every_pixel_of_a_run_has_a_number_of_its_own():
    assert NUMBERS.shape == (3, 1, 6, 9) and len(NUMBERS.unique()) == NUMBERS.numel()


def test_whole_pictures_windows_and_tiles_are_recognised():
    assert read_views(NUMBERS, FULL) == [View(i, 0, 0, 6, 9, FULL) for i in range(3)]
    assert all(view and view.whole for view in read_views(NUMBERS, FULL))
    assert [view and view.picture for view in read_views(NUMBERS[[2, 0]], FULL)] == [2, 0]
    tile = read_views(NUMBERS[1:2, :, 2:5, 3:9], FULL)
    assert tile == [View(1, 2, 3, 3, 6, FULL)] and tile[0] and not tile[0].whole
    assert read_views(NUMBERS[2:, :, 5:, 8:], FULL) == [View(2, 5, 8, 1, 1, FULL)]


@pytest.mark.parametrize(
    "numbers",
    [
        NUMBERS.roll(2, dims=-1),
        NUMBERS.roll(1, dims=-2),
        NUMBERS.flip(-1),
        NUMBERS.mT,
        NUMBERS[:, :, ::2, ::2],
        NUMBERS.roll(4, dims=-1)[..., 2:6],
        torch.zeros_like(NUMBERS),
    ],
    ids=["rolled across", "rolled down", "mirrored", "transposed", "thinned", "over a seam", "no numbers"],
)
def test_what_is_no_rectangle_of_a_picture_has_no_view(numbers: torch.Tensor):
    assert read_views(numbers, FULL) == [None] * 3


def test_a_view_has_its_part_of_every_grid():
    view = View(0, 16, 8, 8, 24, (32, 40))
    assert view.grid((8, 24)) == (32, 40) and view.grid((4, 12)) == (16, 20)
    assert view.part((32, 40)) == (slice(16, 24), slice(8, 32))
    assert view.part((16, 20)) == (slice(8, 12), slice(4, 16))
    assert View(0, 31, 39, 1, 1, (32, 40)).part((2, 2)) == (slice(1, 2), slice(1, 2))
