"""What sampling writes into a trace, and what RouterVisualize makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import subjects
import torch
from comfyui_moa.moa_attention.trace import Trace
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.visualize import LAYERS, MODES, RouterVisualize, to_mask
from subjects import Family

MAN = {4: 11}


@pytest.fixture(scope="module")
def family() -> Family:
    return subjects.make_family("sd15")


def run(family: Family, size: tuple[int, ...], positive: Any = None, **options: Any) -> Trace:
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0).result
    family.sample(model, positive or family.prompt(subjects=MAN), size=size, **options)
    return trace


@pytest.fixture(scope="module")
def wide(family: Family) -> Trace:
    return run(family, (8, 16))


def test_maps_lie_on_each_layers_own_grid(wide: Trace):
    assert len(wide.calls) == len(wide.steps()) == 2
    maps = wide.calls[0].maps
    assert maps.keys() == {spec.name for spec in wide.layers}
    expected = {
        "input_1_0": (8, 16),
        "input_4_0": (4, 8),
        "input_8_0": (2, 4),
        "middle_0_0": (1, 2),
        "output_11_0": (8, 16),
    }
    for name, grid in expected.items():
        for which in ("attn1", "attn2"):
            assert maps[f"{name}_{which}"].shape == (1, *grid)
            assert maps[f"{name}_{which}"].device.type == "cpu"
    assert all(m.min() >= 0 and m.max() <= 1 and m.std() > 0 for n, m in maps.items() if not n.startswith("middle"))


def test_odd_sizes_have_the_hosts_own_grids(family: Family):
    maps = run(family, (9, 13), steps=1).calls[0].maps
    assert maps["input_1_0_attn1"].shape == (1, 9, 13)
    assert maps["input_4_0_attn2"].shape == (1, 5, 7)
    assert maps["output_11_0_attn2"].shape == (1, 9, 13)


def test_rows_know_their_picture_of_the_batch(family: Family):
    both = family.prompt(1, MAN) + family.prompt(3, {6: 12})
    trace = run(family, (8, 8, 2), both, steps=1)
    rows = sorted(int(i) for call in trace.calls for i in call.images)
    assert rows == [0, 0, 1, 1]


def test_each_run_forgets_the_one_before(family: Family):
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0).result
    for _ in range(2):
        family.sample(model, family.prompt(subjects=MAN), steps=2)
    assert len(trace.steps()) == 2
    family.sample(model, family.prompt())
    assert trace.steps() == []


def test_branches_have_traces_of_their_own(family: Family):
    one, two = (ApplyMoA.execute(family.model, family.adapter, 1.0).result for _ in range(2))
    family.sample(one[0], family.prompt(subjects=MAN), steps=1)
    assert len(one[1].calls) == 1
    assert two[1].calls == []


def test_an_interrupted_run_leaves_a_readable_trace(family: Family):
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0).result

    def interrupt(*_: Any) -> None:
        raise InterruptedError

    handle = family.model.model.diffusion_model.out.register_forward_pre_hook(interrupt)
    with pytest.raises(InterruptedError):
        family.sample(model, family.prompt(subjects=MAN))
    handle.remove()
    assert all(m.device.type == "cpu" for call in trace.calls for m in call.maps.values())
    family.sample(model, family.prompt(subjects=MAN))
    assert len(trace.steps()) == 2


@pytest.mark.parametrize("mode", [m for m in MODES if m != "contact sheet"])
@pytest.mark.parametrize("layers", LAYERS)
def test_pictures_have_the_size_of_the_image(wide: Trace, mode: str, layers: str):
    image = torch.rand(1, 64, 128, 3)
    picture, mask = RouterVisualize.execute(wide, image, mode, layers).result
    assert picture.shape == (1, 64, 128, 3)
    assert mask.shape == (1, 64, 128)
    assert picture.min() >= 0 and picture.max() <= 1
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_contact_sheet_has_a_line_for_every_layer(wide: Trace):
    def sheet(layers: str) -> torch.Tensor:
        return RouterVisualize.execute(wide, torch.rand(1, 64, 128, 3), "contact sheet", layers).result[0]

    everything, crosses = sheet("all"), sheet("cross-attention")
    heading, row = 16, 48
    assert everything.shape[1] == heading + 32 * row
    assert crosses.shape[1] == heading + 16 * row


def test_a_batch_has_a_picture_each(family: Family):
    trace = run(family, (8, 8, 2), steps=1)
    for mode in MODES:
        picture, mask = RouterVisualize.execute(trace, torch.rand(2, 64, 64, 3), mode, "all").result
        assert len(picture) == len(mask) == 2
        assert not torch.equal(picture[0], picture[1])


def test_steps_choose_a_part_of_the_run(wide: Trace):
    image = torch.rand(1, 64, 128, 3)

    def picture(*steps: int) -> torch.Tensor:
        return RouterVisualize.execute(wide, image, "heat map", "all", *steps).result[0]

    assert torch.equal(picture(0, -1), picture(0, 1))
    assert not torch.equal(picture(0, 0), picture(1, 1))
    with pytest.raises(ValueError, match="No steps from 5 to -1: the run recorded steps 0 to 1"):
        picture(5, -1)


def test_masks_are_soft_at_threshold_zero():
    values = torch.tensor([[0.2, 0.3], [0.4, 0.6]])
    torch.testing.assert_close(to_mask(values, 0), torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
    assert to_mask(values, 0.4).tolist() == [[0, 0], [1, 1]]
    assert to_mask(torch.full((2, 2), 0.5), 0.5).tolist() == [[0, 0], [0, 0]]


def test_an_empty_trace_says_why(family: Family):
    with pytest.raises(ValueError, match="trace is empty.*queue again"):
        RouterVisualize.execute(
            Trace(family.adapter.patcher.model.config.layers), torch.rand(1, 8, 8, 3), "overlay", "all"
        )


def test_a_run_in_which_nobody_spoke_has_an_empty_mask(family: Family):
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0).result
    family.sample(model, family.prompt())
    image = torch.rand(2, 8, 8, 3)
    for mode in MODES:
        pictures, masks = RouterVisualize.execute(trace, image, mode, "all").result
        assert pictures.shape == image.shape and masks.shape == (2, 8, 8) and not masks.any()


def test_a_picture_of_another_run_is_refused(wide: Trace):
    with pytest.raises(ValueError, match="picture 1 of the batch"):
        RouterVisualize.execute(wide, torch.rand(2, 64, 128, 3), "overlay", "all")
