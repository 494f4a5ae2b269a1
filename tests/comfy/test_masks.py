"""Every MASK input of our nodes takes a mask in every shape that nodes give; pictures that show nothing are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import subjects
import torch
from comfyui_moa.nodes.crop import MoASubjectCrop
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.pictures.crops import STOP
from comfyui_moa.nodes.library import MoASaveSubject
from comfyui_moa.nodes.settings import MoASubjectSettings
from comfyui_moa.nodes.sockets import Subject
from torch import Tensor

IMAGES = torch.rand(1, 32, 24, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def adapter() -> Any:
    return subjects.make_family("sd15").adapter


def encode(adapter: Any, mask: Tensor) -> Tensor:
    return SubjectEncode.execute(adapter, IMAGES, "man", mask).result[0].features


def crop(_: Any, mask: Tensor) -> Tensor:
    return MoASubjectCrop.execute(IMAGES, "largest", 1, 0.0, STOP, mask=mask).result[0]


def region(_: Any, mask: Tensor) -> Tensor:
    subject = Subject("man", 1, torch.zeros(1, 4), "")
    return MoASubjectSettings.execute(subject, 1.0, 0.0, 1.0, region=mask).result[0].settings.region


@pytest.mark.parametrize("node", [encode, crop, region])
def test_a_mask_of_every_shape_gives_the_same(adapter: Any, node: Callable[[Any, Tensor], Tensor]):
    mask = torch.zeros(32, 24)
    mask[8:20, 4:16] = 1
    expected = node(adapter, mask[None])
    for shape in (mask, mask[None, None]):
        assert torch.equal(node(adapter, shape), expected)
    assert not torch.equal(node(adapter, torch.ones(1, 32, 24)), expected)
    with pytest.raises(ValueError, match="expects a mask of height × width.*3 × 32 × 24"):
        node(adapter, mask.expand(1, 3, 32, 24))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 32, 24, 2)], ids=str)
def test_pictures_that_show_nothing_are_refused_by_every_node(adapter: Any, shape: tuple[int, ...]):
    picture, subject = torch.zeros(shape), Subject("man", 1, torch.zeros(1, 4), "")
    nodes: dict[str, Callable[[], Any]] = {
        "Encode Subject": lambda: SubjectEncode.execute(adapter, picture, "man"),
        "Crop Subject": lambda: MoASubjectCrop.execute(picture, "largest", 1, 0.0, STOP),
        "Save Subject": lambda: MoASaveSubject.execute(subject, "man", picture),
    }
    for title, node in nodes.items():
        with pytest.raises(ValueError, match=rf"^'{title} \(MoA\)' expects pictures of"):
            node()


def test_several_masks_are_the_regions_of_several_frames():
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    assert torch.equal(region(None, masks), masks)
