"""Reference pictures in tiles, each of which acts on its part of the new picture."""

from __future__ import annotations

from typing import Any

import host
import pytest
import subjects
import torch
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.combine import MoASubjectCombine
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.library import MoASaveSubject
from comfyui_moa.nodes.sockets import Subject
from ipadapter_plus import Prompt
from test_image_prompts import FEATURES
from test_ipadapter_plus import FACE, Kind, assert_equal, made, ours, settings, theirs
from torch import Tensor

LONG = torch.rand(1, 24, 60, 3, generator=torch.Generator().manual_seed(5))


def encoded(found: Kind, pictures: Tensor, **options: Any) -> Subject:
    vision = host.clip_vision(FEATURES, FEATURES)
    return SubjectEncode.execute(found.family.adapter, pictures, "man", clip_vision=vision, **options).result[0]


def tile_prompts(found: Kind, subject: Subject, **options: Any) -> list[Prompt]:
    """One of its nodes for each tile."""
    each = [(tile.features.unflatten(1, (-1, found.family.context)), tile.area[None]) for tile in subject.tiles]
    negative = found.tokens("negative")
    return [Prompt(tokens, negative, mask=area, **options) for tokens, area in each]


def test_each_tile_acts_on_its_part():
    found = made("sd15", "base")
    subject = encoded(found, LONG, fit="tiles")
    assert [tuple(tile.area.nonzero()[0].tolist()) for tile in subject.tiles] == [(0, 0), (0, 192), (0, 384)]
    once: dict[str, Any] = {"cfg": 4.0, "size": (16, 24)}
    published = theirs(found, tile_prompts(found, subject, weight=0.7, weight_type="ease in"), **once)
    assert_equal(found, published, ours(found, settings(subject, 0.7, weight_type="ease in"), **once))
    whole = encoded(found, LONG, fit="crop centre")
    assert subjects.rms_difference(published, ours(found, settings(whole, 0.7, weight_type="ease in"), **once)) > 1e-3


def test_tiles_of_a_white_picture_are_that_picture():
    """Four equal tiles cover the new picture once, wherever a router lets a subject act."""
    found, white = made("sd15", "base"), torch.ones(1, 40, 40, 3)
    tiled, plain = encoded(found, white, fit="tiles"), encoded(found, white, fit="crop centre")
    assert len(tiled.tiles) == 4
    size: dict[str, Any] = {"size": (32, 32)}
    assert_equal(found, ours(found, plain, **size), ours(found, tiled, **size))
    constant = ours(found, tiled, router="constant", **size)
    assert subjects.rms_difference(constant, ours(found, plain, router="constant", **size)) < 5e-3


def test_a_region_bounds_the_tiles():
    found = made("sd15", "base")
    left = torch.zeros(1, 32, 32)
    left[:, :, :16] = 1
    tiled = settings(encoded(found, torch.rand(2, 40, 40, 3), fit="tiles", combine="concat"), region=left)
    halves = [settings(encoded(found, LONG, fit="tiles"), region=1 - left), tiled]
    off = settings(tiled, 0.0)
    assert torch.equal(ours(found, off), found.family.sample(found.family.model, found.family.prompt()))
    assert subjects.rms_difference(ours(found, tiled), ours(found, *halves)) > 1e-3


def test_several_pictures_are_combined_tile_by_tile():
    found = made("sd15", "base")
    pictures = torch.rand(2, 40, 40, 3, generator=torch.Generator().manual_seed(6))
    both = encoded(found, pictures, fit="tiles", combine="concat")
    each = [encoded(found, picture[None], fit="tiles") for picture in pictures]
    for joined, *alone in zip(both.tiles, *(subject.tiles for subject in each), strict=True):
        torch.testing.assert_close(joined.features, torch.cat([tile.features for tile in alone], dim=1))


def test_tiles_are_refused_where_they_have_no_place():
    found = made("sd15", "base")
    subject = encoded(found, LONG, fit="tiles")
    with pytest.raises(ValueError, match="'man' is in tiles, which only 'Add Subjects \\(MoA\\)' takes"):
        MoASubjectCombine.execute({"subject_0": subject, "subject_1": subject}, "mean")
    with pytest.raises(ValueError, match="is in tiles"):
        MoASaveSubject.execute(subject, "tiles")
    with pytest.raises(ValueError, match="is in tiles"):
        ApplyMoA.execute(found.family.model, found.family.adapter, 1.0, negative_subject=subject)
    with pytest.raises(ValueError, match="needs an IP-Adapter without face embedding and no 'mask'"):
        encoded(found, LONG, fit="tiles", mask=torch.ones(1, 8, 8))
    with pytest.raises(ValueError, match="needs an IP-Adapter without face embedding"):
        encoded(made("sd15", "faceid plus"), LONG, fit="tiles", face=FACE)
