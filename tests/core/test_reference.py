"""Reference pictures: cropped to the mask, filled with grey, padded to a square, resized."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moa_attention.adapters.vision import ImageEncoder
from moa_attention.subjects.pictures import as_pictures
from moa_attention.subjects.reference import GREY, bounding_box, fit_to_square, prepare_reference


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
    padded = fit_to_square(torch.ones(3, h, w), 40)
    assert padded.shape == (3, 40, 40)
    inside = padded[0] == 1
    assert inside.sum() == h * w
    rows, columns = bounding_box(inside.float())
    assert abs((rows.start - 0) - (40 - rows.stop)) <= 1
    assert abs((columns.start - 0) - (40 - columns.stop)) <= 1
    assert torch.all(padded[0][~inside] == GREY)


def padded_first(picture: torch.Tensor, side: int) -> torch.Tensor:
    """The same by its definition, with a square of the longer side in memory."""
    _, h, w = picture.shape
    x, y = max(h - w, 0), max(w - h, 0)
    square = F.pad(picture, (x // 2, x - x // 2, y // 2, y - y // 2), value=GREY)
    return F.interpolate(square[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]


@pytest.mark.parametrize(
    "size", [(40, 60), (64, 64), (500, 333), (333, 500), (2000, 100), (100, 2000), (20, 10), (224, 224)]
)
@pytest.mark.parametrize("side", [64, 224])
def test_strips_give_the_padded_square_to_the_bit(size: tuple[int, int], side: int):
    picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_to_square(picture, side), padded_first(picture, side))


@pytest.mark.parametrize("size", [(100, 8000), (8000, 100)])
def test_a_long_strip_never_becomes_a_square_of_its_length(size: tuple[int, int]):
    """The square of 8000 × 8000 pixels would have 768 MB."""
    with largest_tensor() as largest:
        fit_to_square(torch.zeros(3, *size), 224)
    assert largest() <= 8000 * 224 * 3


@contextmanager
def largest_tensor() -> Iterator[Callable[[], int]]:
    """Counts the numbers of the largest tensor that is made inside."""
    sizes = [0]

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))
            return made

    with Sizes():
        yield lambda: max(sizes)


@pytest.mark.parametrize(
    "shape", [(1, 16, 16, 2), (1, 16, 16, 1), (16, 16, 3), (1, 1, 1, 3), (2, 100, 7, 4), (1, 0, 16, 3)]
)
def test_what_shows_no_subject_is_refused_by_the_title_of_the_node(shape: tuple[int, ...]):
    with pytest.raises(
        ValueError, match=r"^'Encode Subject \(MoA\)' expects pictures of .* at 'images', but received \d+ × "
    ):
        as_pictures(torch.zeros(shape), "Encode Subject (MoA)")


def test_pictures_keep_their_colours_and_lose_what_follows():
    images = torch.rand(2, 8, 100, 4)
    assert torch.equal(as_pictures(images, ""), images[..., :3])
    assert as_pictures(torch.zeros(0, 512, 512, 3), "").shape == (0, 512, 512, 3)


def test_a_mask_of_a_few_pixels_is_refused():
    mask = torch.zeros(1, 40, 60)
    mask[:, 20:24, 30:33] = 1
    with pytest.raises(ValueError, match="covers only 3 × 4 pixels of the picture"):
        prepare_reference(picture(), mask, 16)


def test_resize_does_not_alias():
    """One white line in eight: it contributes to every pixel of the small picture."""
    lines = (torch.arange(64) % 8 == 0).float().expand(3, 64, -1)
    assert (fit_to_square(lines, 8)[:, :, 1:-1] - 1 / 8).abs().max() < 0.05


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
    with pytest.raises(ValueError, match="mask is empty.*use no mask"):
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
