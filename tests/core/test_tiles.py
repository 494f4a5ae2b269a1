"""The tiles of reference pictures: their sizes and places."""

import pytest

from moa_attention.subjects.tiles import TILE, tiling


@pytest.mark.parametrize(
    ("height", "width", "crop", "kept", "corners"),
    [
        (300, 400, (300, 400), (256, 341), [(0, 0), (0, 85)]),
        (301, 400, (301, 301), (512, 512), [(0, 0), (0, 256), (256, 0), (256, 256)]),
        (400, 301, (301, 301), (512, 512), [(0, 0), (0, 256), (256, 0), (256, 256)]),
        (100, 250, (100, 250), (256, 640), [(0, 0), (0, 192), (0, 384)]),
        (512, 256, (512, 256), (512, 256), [(0, 0), (256, 0)]),
        (900, 100, (900, 100), (1024, 256), [(0, 0), (256, 0), (512, 0), (768, 0)]),
    ],
)
def test_tiles_cover_the_picture(height: int, width: int, crop: tuple, kept: tuple, corners: list):
    found = tiling(height, width)
    assert (found.crop, found.kept, found.corners) == (crop, kept, corners)
    covered = {(y + i, x + j) for y, x in corners for i in (0, TILE - 1) for j in (0, TILE - 1)}
    assert (0, 0) in covered and (kept[0] - 1, kept[1] - 1) in covered
