"""The region of a subject is cut by whoever cuts the picture: it stays where it is in the whole picture."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import cutters
import pytest
import subjects
import torch
import torch.nn.functional as F
from comfyui_moa.moa_attention.method.attention import resize
from comfyui_moa.moa_attention.routers.base import MaskRouter, TrainingFreeRouter
from comfyui_moa.moa_attention.run.budget import AutomaticBudget
from comfyui_moa.moa_attention.run.listener import CallInfo
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.sockets import Subject, SubjectSettings
from subjects import Family
from torch import Tensor

TOLERANCE = 1e-3
SIDE = 16
TILES = cutters.boxes((SIDE, SIDE), 8)
KINDS = pytest.mark.parametrize("kind", cutters.KINDS)
FIRST, SECOND = torch.zeros(64, 64), torch.zeros(64, 64)
FIRST[8:60, 4:40], SECOND[20:64, 36:64] = 1, 1
"""Regions of two subjects; each covers every tile in another way."""


@pytest.fixture(scope="module")
def family() -> Family:
    return subjects.make_family("sd15")


def prompt(family: Family, *regions: Tensor | None) -> Any:
    """A subject on a token of its own for each region."""
    [[context, extra]] = family.prompt()
    bindings = [
        Binding(
            Subject("man", 1, subjects.picture(11 + i), subjects.ENCODER, SubjectSettings(region=region)), 4 + 5 * i
        )
        for i, region in enumerate(regions)
    ]
    return [with_subjects(context, extra, bindings)]


@dataclass
class Fixed(TrainingFreeRouter):
    """Gives shares (S,h,w) that a test computed."""

    fixed: Tensor
    apart = True

    def shares(self, call: CallInfo) -> Tensor:
        return self.fixed.expand(len(call.slots), -1, -1, -1)


def by_hand(box: cutters.Box) -> Fixed:
    """The shares of both regions at the latent pixels of a box."""
    return Fixed(cutters.cut(resize(torch.stack((FIRST, SECOND))[None], (SIDE, SIDE))[0], box))


def alone(family: Family, noise: Tensor, box: cutters.Box, cfg: float = 5.0) -> Tensor:
    """The box sampled by itself, with the shares that its pixels have in the whole picture."""
    model, cond = family.attach(router=by_hand(box)), prompt(family, None, None)
    return cutters.sample(model, cond, family.prompt(2), cutters.cut(noise, box), cfg=cfg)


def area(cond: Any, box: cutters.Box) -> Any:
    top, left, height, width = (8 * side for side in box)
    return importlib.import_module("nodes").ConditioningSetArea().append(cond, width, height, left, top, 1.0)[0]


@pytest.mark.parametrize("box", [(8, 0, 8, 8), (4, 6, 12, 8)], ids=str)
def test_the_area_of_a_prompt_has_its_part_of_the_region(family: Family, box: cutters.Box):
    noise, both = cutters.noise(SIDE, SIDE), prompt(family, FIRST, SECOND)
    # Without guidance: the host evaluates the negative prompt for all of the picture, too, and mixes both.
    got = cutters.sample(family.attach(router=MaskRouter()), area(both, box), family.prompt(2), noise, cfg=1.0)
    expected = alone(family, noise, box, cfg=1.0)
    assert subjects.difference(expected, cutters.cut(got, box)) < TOLERANCE
    free = cutters.sample(family.model, family.prompt(), family.prompt(2), cutters.cut(noise, box), cfg=1.0)
    assert subjects.difference(free, expected) > 0.1


def test_learned_routers_are_bounded_by_the_part_of_the_region(family: Family):
    """The left half of the picture, seen by a prompt for the lower three quarters of the columns."""
    left, box, seen = torch.zeros(64, 64), (0, 4, 16, 12), []
    left[:, :32] = 1
    observe = subjects.Recorder(lambda spec, routing: seen.append(routing.personal.unflatten(1, routing.grid)))
    cond = area(prompt(family, left), box)
    cutters.sample(family.attach(observers=[observe]), cond, family.prompt(2), cutters.noise(SIDE, SIDE), 1)
    finest = [share for share in seen if share.shape[-2:] == (16, 12)]
    assert finest and all(share[..., :3].min() > 0 and not share[..., 5:].any() for share in finest)


@KINDS
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_tile_has_its_part_of_the_region(family: Family, batch: int, kind: type[cutters.Tiles]):
    noise, both = cutters.noise(SIDE, SIDE, 2), prompt(family, FIRST, SECOND)
    got = cutters.sample(
        cutters.tiled(family.attach(router=MaskRouter()), TILES, batch, kind=kind), both, family.prompt(2), noise
    )
    for box in TILES:
        assert subjects.difference(alone(family, noise, box), cutters.cut(got, box)) < TOLERANCE


@KINDS
def test_tiles_of_rolled_latents_have_theirs(family: Family, kind: type[cutters.Tiles]):
    noise, both = cutters.noise(SIDE, SIDE), prompt(family, FIRST, SECOND)
    rolled = cutters.tiled(family.attach(router=MaskRouter()), TILES, 4, 3, kind)
    got = cutters.sample(rolled, both, family.prompt(2), noise).roll((3, 3), (-2, -1))
    shares = resize(torch.stack((FIRST, SECOND))[None], (SIDE, SIDE))[0].roll((3, 3), (-2, -1))
    for box in TILES:
        own = family.attach(router=Fixed(cutters.cut(shares, box)))
        part = cutters.cut(noise.roll((3, 3), (-2, -1)), box)
        expected = cutters.sample(own, prompt(family, None, None), family.prompt(2), part)
        assert subjects.difference(expected, cutters.cut(got, box)) < TOLERANCE


@KINDS
def test_an_area_in_tiles_and_a_window_of_frames(family: Family, kind: type[cutters.Tiles]):
    """Cut twice, and not at all: the frames of a window are whole pictures."""
    noise, both = cutters.noise(SIDE, SIDE, 3), prompt(family, FIRST, SECOND)
    tiled = cutters.tiled(family.attach(router=MaskRouter()), cutters.boxes((8, 16), 8), 2, kind=kind)
    got = cutters.sample(tiled, area(both, (8, 0, 8, 16)), family.prompt(2), noise, cfg=1.0)
    for box in TILES[2:]:
        assert subjects.difference(alone(family, noise, box, cfg=1.0), cutters.cut(got, box)) < TOLERANCE
    whole = cutters.sample(family.attach(router=MaskRouter()), both, family.prompt(2), noise)
    windowed = cutters.windows(family.attach(router=MaskRouter()), 2, 1)
    assert subjects.difference(whole, cutters.sample(windowed, both, family.prompt(2), noise)) < TOLERANCE


def test_a_measured_budget_of_a_tile_is_its_own(family: Family):
    """The first tile has no subject, the last one is full of one."""
    corner = torch.zeros(64, 64)
    corner[32:, 32:] = 1
    noise, cond = cutters.noise(SIDE, SIDE), prompt(family, corner)
    dense, automatic = (
        cutters.sample(
            cutters.tiled(family.attach(router=MaskRouter(), **options), TILES, 1), cond, family.prompt(2), noise
        )
        for options in ({}, {"budget": AutomaticBudget()})
    )
    assert subjects.difference(dense, automatic) < TOLERANCE


def upscaler_tile(cond: Any, box: cutters.Box, canvas: int) -> Any:
    """A prompt as ssitu/ComfyUI_UltimateSDUpscale cuts it for a tile: of what it knows, `reference_latents` are resized to the canvas,
    cut at the tile and resized to the tile's latents; other entries remain."""

    def cut(reference: Tensor) -> Tensor:
        whole = F.interpolate(reference, size=(canvas, canvas), mode="bilinear", align_corners=False)
        return F.interpolate(cutters.cut(whole, box), size=box[2:], mode="bilinear", align_corners=False)

    return [
        [c, {**extra, **{k: [cut(v) for v in extra[k]] for k in extra.keys() & {"reference_latents"}}}]
        for c, extra in cond
    ]


@pytest.mark.parametrize("box", TILES, ids=str)
def test_an_upscaled_tile_has_its_part_of_the_region(family: Family, box: cutters.Box):
    """Each tile is a run of its own, on a canvas of 16 latent pixels."""
    part = cutters.cut(cutters.noise(SIDE, SIDE), box)
    cond = upscaler_tile(prompt(family, FIRST, SECOND), box, SIDE)
    got = cutters.sample(family.attach(router=MaskRouter()), cond, family.prompt(2), part)
    shares = torch.stack((FIRST, SECOND))[None]
    expected_at = cutters.cut(F.interpolate(shares, size=(SIDE, SIDE), mode="bilinear"), box)
    own = family.attach(router=Fixed(resize(expected_at, (64, 64))[0]))
    expected = cutters.sample(own, prompt(family, None, None), family.prompt(2), part)
    assert subjects.difference(expected, got) < TOLERANCE
    stretched = prompt(family, FIRST, SECOND)
    other = cutters.sample(family.attach(router=MaskRouter()), stretched, family.prompt(2), part)
    assert subjects.difference(expected, other) > 0.2


def test_an_upscaled_tile_inside_a_region_is_no_prompt_without_regions(family: Family):
    cond = upscaler_tile(prompt(family, torch.ones(64, 64).tril(-40).logical_not().float()), (0, 8, 8, 8), SIDE)
    part = cutters.noise(8, 8)
    full = cutters.sample(family.attach(router=MaskRouter()), cond, family.prompt(2), part)
    own = family.attach(router=Fixed(torch.ones(1, 8, 8)))
    assert subjects.difference(cutters.sample(own, prompt(family, None), family.prompt(2), part), full) < TOLERANCE


def test_the_regions_are_found_behind_other_nodes(family: Family):
    """References of other nodes stand beside them; where a node replaced them, the regions of the whole picture remain."""
    assert "reference_latents" not in prompt(family, None, None)[0][1]
    model, set_values = family.attach(), importlib.import_module("node_helpers").conditioning_set_values
    cond, reference = prompt(family, FIRST), {"reference_latents": [torch.zeros(1, 4, 8, 8)]}
    expected = family.sample(model, cond)
    assert torch.equal(family.sample(model, set_values(cond, reference, append=True)), expected)
    assert torch.equal(family.sample(model, set_values(cond, reference)), expected)
    assert subjects.difference(expected, family.sample(model, prompt(family, None))) > 1e-3


def test_each_subject_of_joined_prompts_has_its_own_region(family: Family):
    """The dict of a concatenation is that of the first prompt."""
    concat = importlib.import_module("nodes").ConditioningConcat().concat
    joined = concat(prompt(family, FIRST), prompt(family, SECOND))[0]
    seen = []
    observe = subjects.Recorder(lambda spec, routing: seen.append((spec.name, routing.personal)))
    family.sample(family.attach(router=MaskRouter(), observers=[observe]), joined, size=(SIDE, SIDE), steps=1)
    finest = [share for name, share in seen if name.startswith("output_11")]
    expected = resize(torch.stack((FIRST, SECOND))[None], (SIDE, SIDE))[0].amax(dim=0)
    assert len(finest) == 2
    torch.testing.assert_close(finest[0].unflatten(1, (SIDE, SIDE))[0], expected, atol=1e-3, rtol=0)


def test_a_prompt_with_a_region_is_a_plain_one_to_a_plain_model(family: Family):
    """Whole, in tiles of a batch, and with an area."""
    for kind in (None, *cutters.KINDS):
        noise = cutters.noise(SIDE, SIDE, 2)
        plain, bound = (
            cutters.sample(
                cutters.tiled(family.model, TILES, 3, kind=kind) if kind else family.model,
                cond,
                family.prompt(2),
                noise,
            )
            for cond in (family.prompt(), prompt(family, FIRST))
        )
        assert subjects.difference(plain, bound) < 1e-4
