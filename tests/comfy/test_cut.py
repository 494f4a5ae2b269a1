"""What is remembered of a row belongs to its picture and its place, in windows of frames and in tiles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cutters
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.routers.words import PlaceRouter, WordRouter
from comfyui_moa.moa_attention.run.budget import AutomaticBudget
from comfyui_moa.moa_attention.run.trace import Trace, average_map
from comfyui_moa.nodes.host.model.views import PIXELS, RUN, payload_of_run, views_of_call
from subjects import Family

TWO = {4: 11, 9: 12}
TOLERANCE = 1e-3
"""In standard deviations, as in `test_conditions`: batched matrix products round otherwise than single ones."""
TILES = cutters.boxes((16, 16), 8)


@pytest.fixture(scope="module")
def family() -> Family:
    return subjects.make_family("sd15")


def run(family: Family, model: Any, noise: torch.Tensor, steps: int = 3) -> torch.Tensor:
    return cutters.sample(model, family.prompt(1, TWO), family.prompt(2), noise, steps)


ROUTERS = pytest.mark.parametrize("router", [WordRouter, PlaceRouter])
KINDS = pytest.mark.parametrize("kind", cutters.KINDS)


@ROUTERS
def test_a_picture_in_a_window_is_itself_alone(family: Family, router: type[WordRouter]):
    noise = cutters.noise(16, 16, 5)
    together = run(family, cutters.windows(family.attach(router=router()), 2, 1), noise)
    alone = torch.cat([run(family, family.attach(router=router()), one[None]) for one in noise])
    base = cutters.sample(family.model, family.prompt(1), family.prompt(2), noise, 3)
    assert subjects.difference(alone, base) > 0.1, "subjects have an effect"
    assert subjects.difference(alone, together) < TOLERANCE
    anchored = run(family, cutters.windows(family.attach(router=router()), 2, causal_window_fix=True), noise)
    assert subjects.difference(alone, anchored) < TOLERANCE


@KINDS
@ROUTERS
def test_a_tile_is_itself_alone_in_any_batch(family: Family, router: type[WordRouter], kind: type[cutters.Tiles]):
    noise = cutters.noise(16, 16, 2)
    expected = torch.zeros_like(noise)
    for box in TILES:
        cutters.cut(expected, box).copy_(run(family, family.attach(router=router()), cutters.cut(noise, box)))
    for batch in (1, 3, 4):
        got = run(family, cutters.tiled(family.attach(router=router()), TILES, batch, kind=kind), noise)
        assert subjects.difference(expected, got) < TOLERANCE, batch


def test_overlapping_tiles_do_not_depend_on_their_batch(family: Family):
    tiles, noise = cutters.boxes((16, 16), 8, 4), cutters.noise(16, 16)
    one, all_of_them = (run(family, cutters.tiled(family.attach(router=WordRouter()), tiles, n), noise) for n in (1, 9))
    assert subjects.difference(one, all_of_them) < TOLERANCE


@KINDS
@ROUTERS
def test_tiles_of_rolled_latents_share_nothing_and_see_their_own_call(
    family: Family, router: type[WordRouter], kind: type[cutters.Tiles]
):
    """A tile over the seam shows no part of the picture: the router decides from its call alone, which is therefore made twice."""
    noise, results, calls = cutters.noise(16, 16), [], []
    for batch in (1, 3, 4):
        kept: Any = router()
        model = cutters.tiled(family.attach(router=kept), TILES, batch, 3, kind)
        with subjects.counted_calls(family.model) as rows:
            results.append(run(family, model, noise))
        calls.append(len(rows))
        assert not kept.rows and not kept.open_calls
    assert max(subjects.difference(results[0], other) for other in results[1:]) < TOLERANCE
    assert calls == [3 * (4 + 3), 3 * (2 + 1), 3 * (1 + 1)], "three of the four tiles lie over a seam"
    seen = run(family, cutters.tiled(family.attach(router=router()), TILES, 4, 3, kind), noise, steps=1)
    base = run(family, cutters.tiled(family.model, TILES, 4, 3, kind), noise, steps=1)
    assert subjects.difference(base, seen) > 10 * TOLERANCE


def test_tiles_that_move_are_seen_before_they_are_decided(family: Family):
    """In its second step each tile shows another part of the picture, which no earlier call covered."""
    noise, at = cutters.noise(16, 16), iter(range(8))

    def moved(apply: Any, given: dict) -> torch.Tensor:
        tile = cutters.boxes((16, 16), 8, 4)[next(at)]
        model = cutters.tiled(family.model, [tile], 1)
        return model.model_options["model_function_wrapper"](apply, given).nan_to_num()

    model = family.attach(router=WordRouter())
    model.set_model_unet_function_wrapper(moved)
    with subjects.counted_calls(family.model) as rows:
        run(family, model, noise)
    assert len(rows) == 1 + 2 + 2


@pytest.mark.parametrize("axis", [2, 3])
def test_a_window_of_the_picture_itself_is_a_part_of_it(family: Family, axis: int):
    """Context windows along the height or width, which the host makes of one picture: each is itself alone."""
    noise = cutters.noise(16, 16)
    got = run(family, cutters.windows(family.attach(router=WordRouter()), 8, dim=axis), noise)
    alone = [run(family, family.attach(router=WordRouter()), part.contiguous()) for part in noise.split(8, dim=axis)]
    assert subjects.difference(torch.cat(alone, dim=axis), got) < TOLERANCE


def test_the_trace_knows_the_pictures_of_windows_and_the_places_of_tiles(family: Family):
    layers = family.adapter.patcher.model.config.layers
    names = [spec.name for spec in layers if spec.name.startswith("output_11")]
    noise = cutters.noise(16, 16, 4)
    whole, windowed, tiled, single = (Trace(layers) for _ in range(4))
    run(family, family.attach(observers=[whole]), noise, steps=1)
    run(family, cutters.windows(family.attach(observers=[windowed]), 2), noise, steps=1)
    for picture in range(4):
        expected = average_map(whole.calls, names, picture, (16, 16))
        torch.testing.assert_close(average_map(windowed.calls, names, picture, (16, 16)), expected, atol=2e-3, rtol=0)
    run(family, cutters.tiled(family.attach(observers=[tiled]), TILES, 3), noise[:1], steps=1)
    shown = average_map(tiled.calls, names, 0, (16, 16))
    for box in TILES:
        run(family, family.attach(observers=[single]), cutters.cut(noise[:1], box), steps=1)
        expected = average_map(single.calls, names, 0, (8, 8))
        torch.testing.assert_close(cutters.cut(shown, box), expected, atol=2e-3, rtol=0)


def test_a_measured_budget_belongs_to_its_rows(family: Family):
    """In its first call each window and tile is dense, as if it came alone."""
    noise = cutters.noise(16, 16, 4)
    budget = AutomaticBudget()
    run(family, cutters.windows(family.attach(budget=budget), 2), noise)
    assert len(budget.rows) == 4
    budget = AutomaticBudget()
    run(family, cutters.tiled(family.attach(budget=budget), TILES, 1), noise[:1])
    assert len(budget.rows) == 4
    budget = AutomaticBudget()
    run(family, cutters.tiled(family.attach(budget=budget), TILES, 4, shift=3), noise[:1])
    assert not budget.rows


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2, 3]),
        ({"ad_params": {"sub_idxs": [2, 3]}}, [2, 3]),
        ({"ad_params": {"sub_idxs": None}}, [2, 3]),
        ({"ad_params": {"sub_idxs": [1, 3]}}, [None, 3]),
        ({"context_window": SimpleNamespace(dim=0, index_list=[3], causal_anchor_index=2)}, [2, 3]),
        ({"context_window": SimpleNamespace(dim=0, index_list=[1, 3])}, [None, 3]),
        ({"context_window": SimpleNamespace(dim=2, index_list=[5, 6])}, [2, 3]),
    ],
)
def test_numbers_that_contradict_a_windows_frames_are_not_believed(options: dict, expected: list[int | None]):
    """Windows may be set to keep the conds of other frames."""
    payload = payload_of_run((4, 4, 8, 8), prompt=1)
    numbers, run = payload[PIXELS][2:], payload[RUN].expand(2, -1)
    views, prompts = views_of_call(numbers, run, torch.tensor([4, 5]), (8, 8), options)
    assert [view and view.picture for view in views] == expected and prompts == [1, 1]


def test_rows_that_claim_the_same_part_are_not_told_apart():
    payload = payload_of_run((1, 4, 8, 8))
    numbers, run = payload[PIXELS].repeat(2, 1, 1, 1), payload[RUN].expand(2, -1)
    assert views_of_call(numbers, run, torch.arange(2), (8, 8), {})[0] == [None, None]
    assert views_of_call(numbers, run, torch.arange(2), (4, 4), {})[0] == [None, None]
