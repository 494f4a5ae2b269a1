"""Reference pictures: cropped to the mask, greyed out, padded to a square, resized."""

import pytest
import torch

from moa_attention.encoder import ImageEncoder
from moa_attention.reference import GREY, bounding_box, prepare_reference, square


def picture(h: int = 40, w: int = 60) -> torch.Tensor:
    return torch.rand(1, h, w, 3, generator=torch.Generator().manual_seed(0))


def box(h: int = 40, w: int = 60) -> torch.Tensor:
    mask = torch.zeros(1, h, w)
    mask[:, 10:30, 24:44] = 1
    return mask


def test_bounding_box():
    assert bounding_box(box()[0]) == (slice(10, 30), slice(24, 44))
    single = torch.zeros(5, 5)
    single[4, 0] = 1
    assert bounding_box(single) == (slice(4, 5), slice(0, 1))


def test_crop_is_the_masked_region_itself():
    image = picture()
    prepared = prepare_reference(image, box(), 20)
    torch.testing.assert_close(prepared[0], image[0, 10:30, 24:44].movedim(-1, 0))


def test_pixels_outside_the_mask_do_not_matter():
    image = picture()
    mask = box()
    mask[:, 10:14, 24:28] = 0
    other = torch.where(mask[..., None] > 0, image, torch.rand_like(image))
    assert torch.equal(prepare_reference(image, mask, 20), prepare_reference(other, mask, 20))
    assert not torch.equal(prepare_reference(image, None, 20), prepare_reference(other, None, 20))
    assert torch.all(prepare_reference(image, mask, 20)[0, :, :4, :4] == GREY)


@pytest.mark.parametrize(("h", "w"), [(20, 40), (40, 20), (21, 40)])
def test_padding_is_centred_and_grey(h: int, w: int):
    padded = square(torch.ones(3, h, w), 40)
    assert padded.shape == (3, 40, 40)
    inside = padded[0] == 1
    assert inside.sum() == h * w
    rows, columns = bounding_box(inside.float())
    assert abs((rows.start - 0) - (40 - rows.stop)) <= 1
    assert abs((columns.start - 0) - (40 - columns.stop)) <= 1
    assert torch.all(padded[0][~inside] == GREY)


def test_resize_does_not_alias():
    """One white line in eight: every pixel of the small picture must have seen it."""
    lines = (torch.arange(64) % 8 == 0).float().expand(3, 64, -1)
    assert (square(lines, 8)[:, :, 1:-1] - 1 / 8).abs().max() < 0.05


def test_alpha_is_ignored_and_range_kept():
    image = torch.cat((picture(), torch.full((1, 40, 60, 1), 7.0)), dim=-1)
    prepared = prepare_reference(image, None, 32)
    assert prepared.shape == (1, 3, 32, 32)
    assert torch.equal(prepared, prepare_reference(image[..., :3], None, 32))
    assert prepared.min() >= 0 and prepared.max() <= 1


def test_one_mask_serves_all_pictures():
    images = torch.cat((picture(), 1 - picture()))
    both = prepare_reference(images, box(), 16)
    assert torch.equal(both, prepare_reference(images, box().expand(2, -1, -1), 16))
    assert torch.equal(both[1:], prepare_reference(images[1:], box(), 16))


def test_mask_of_another_size_is_resized():
    mask = torch.zeros(1, 20, 30)
    mask[:, 5:15, 12:22] = 1
    torch.testing.assert_close(
        prepare_reference(picture(), mask, 20), prepare_reference(picture(), box(), 20), atol=0.3, rtol=0
    )


def test_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask is empty.*leave the mask out"):
        prepare_reference(picture(), torch.zeros(1, 40, 60), 16)


def test_wrong_number_of_masks_is_refused():
    with pytest.raises(ValueError, match="3 pictures but 2 masks"):
        prepare_reference(picture().expand(3, -1, -1, -1), box().expand(2, -1, -1), 16)


@torch.no_grad()
def test_the_small_encoder_gives_one_normalised_feature_per_picture():
    torch.manual_seed(0)
    encoder = ImageEncoder(24)
    pictures = torch.rand(3, 3, encoder.picture, encoder.picture)
    features = encoder(pictures)
    assert features.shape == (3, 24)
    torch.testing.assert_close(features.mean(-1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(-1, unbiased=False), torch.ones(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(encoder(pictures[1:2]), features[1:2], atol=1e-5, rtol=1e-4)
    assert (features[0] - features[1]).abs().max() > 1e-3
