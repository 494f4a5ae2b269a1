"""Traces of sampling runs, and the pictures of Visualize MoA Router."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import subjects
import torch
from comfyui_moa.moa_attention.pictures import COLOURS, heat_map, smooth_to, to_mask
from comfyui_moa.moa_attention.run.trace import Trace, average_map
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.host.pictures.map_sheet import map_sheets
from comfyui_moa.nodes.host.pictures.router_pictures import LAYERS, MODES, RouterPictures
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.sockets import Subject
from comfyui_moa.nodes.visualize import RouterVisualize
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


def test_each_row_has_its_picture_of_the_batch(family: Family):
    both = family.prompt(1, MAN) + family.prompt(3, {6: 12})
    trace = run(family, (8, 8, 2), both, steps=1)
    rows = sorted(view.picture for call in trace.calls for view in call.views if view is not None)
    assert rows == [0, 0, 1, 1]


def test_each_run_replaces_the_one_before(family: Family):
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


@pytest.mark.parametrize("mode", ["overlay", "heat map"])
@pytest.mark.parametrize("layers", LAYERS)
def test_pictures_have_the_size_of_the_image(wide: Trace, mode: str, layers: str):
    image = torch.rand(1, 64, 128, 3)
    picture, mask, _ = RouterVisualize.execute(wide, image, mode, layers).result
    assert picture.shape == (1, 64, 128, 3)
    assert mask.shape == (1, 64, 128)
    assert picture.min() >= 0 and picture.max() <= 1
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_a_contact_sheet_has_a_row_for_every_layer(wide: Trace):
    def sheet(layers: str) -> torch.Tensor:
        return RouterVisualize.execute(wide, torch.rand(1, 64, 128, 3), "contact sheet", layers).result[0]

    everything, crosses = sheet("all"), sheet("cross-attention")
    heading, row = 16, 48
    assert everything.shape[1] == heading + 32 * row
    assert crosses.shape[1] == heading + 16 * row


def test_a_batch_has_a_picture_each(family: Family):
    trace = run(family, (8, 8, 2), steps=1)
    for mode in MODES:
        picture, mask, _ = RouterVisualize.execute(trace, torch.rand(2, 64, 64, 3), mode, "all").result
        assert len(mask) == 2 and len(picture) == (1 if mode == "animation" else 2)  # the run has one step
        if mode == "animation":
            continue
        assert not torch.equal(picture[0], picture[1])


def test_steps_select_a_part_of_the_run(wide: Trace):
    image = torch.rand(1, 64, 128, 3)

    def picture(*steps: int) -> torch.Tensor:
        return RouterVisualize.execute(wide, image, "heat map", "all", *steps).result[0]

    assert torch.equal(picture(0, -1), picture(0, 1))
    assert not torch.equal(picture(0, 0), picture(1, 1))
    with pytest.raises(ValueError, match="No steps from 5 to -1: the run recorded steps 0 to 1"):
        picture(5, -1)


@pytest.fixture(scope="module")
def several(family: Family) -> Trace:
    """A man and a woman in two pictures, dense."""
    [[context, extra]] = family.prompt()
    pair = [Subject(word, 1, subjects.picture(s), subjects.ENCODER) for word, s in (("man", 11), ("woman", 12))]
    bound = [[*with_subjects(context, extra, [Binding(s, 4 + i) for i, s in enumerate(pair)])]]
    trace = Trace(family.adapter.patcher.model.config.layers)
    family.sample(family.attach(observers=[trace]), bound, size=(8, 8, 2))
    return trace


def test_the_subjects_shares_make_up_the_whole_share(several: Trace):
    assert several.subjects() == ["man", "woman"]
    calls = [call for step in several.steps() for call in step]
    for names in ([spec.name for spec in several.layers], ["input_4_0_attn1"]):
        whole = average_map(calls, names, 1, (8, 8))
        each = [average_map(calls, names, 1, (8, 8), subject) for subject in ("man", "woman")]
        torch.testing.assert_close(each[0] + each[1], whole, atol=2e-3, rtol=0)
        assert all(m.min() > 0 and m.std() > 0 for m in each)
        assert (each[0] - each[1]).abs().max() > 0.01


def test_the_maps_of_a_run_without_a_choice_are_those_of_all_subjects(several: Trace):
    image = torch.rand(2, 64, 64, 3)
    picture, mask, _ = RouterVisualize.execute(several, image, "heat map", "all", mask_threshold=0.0).result
    calls = [call for step in several.steps() for call in step]
    maps = [smooth_to(average_map(calls, [s.name for s in several.layers], i, (8, 8)), (64, 64)) for i in range(2)]
    assert torch.equal(picture, torch.stack(list(map(heat_map, maps))))
    assert torch.equal(mask, torch.stack([to_mask(m, 0) for m in maps]))


def test_each_subject_has_a_picture_and_a_mask(several: Trace):
    image = torch.rand(2, 64, 64, 3)

    def shown(subject: str) -> tuple[torch.Tensor, torch.Tensor]:
        return RouterVisualize.execute(several, image, "heat map", "all", subject=subject).result[:2]

    pictures, masks = shown("each")
    assert len(pictures) == len(masks) == 4
    for number in (1, 2):
        assert torch.equal(pictures[number - 1 :: 2], shown(str(number))[0])
        assert torch.equal(masks[number - 1 :: 2], shown(str(number))[1])
    with pytest.raises(ValueError, match="is 3, but the run has 2: 1 man, 2 woman"):
        shown("3")


def test_subjects_are_shown_in_their_colours_above_a_legend(several: Trace):
    image = torch.full((2, 64, 64, 3), 0.5)

    def shown(mode: str, subject: str = "together") -> torch.Tensor:
        return RouterVisualize.execute(several, image, mode, "all", subject=subject).result[0]

    both, man = shown("subjects"), shown("subjects", "1")
    assert both.shape == man.shape and both.shape[:1] == (2,) and both.shape[1] > 64 and both.shape[2] == 64
    tint = (man[0, :64] - 0.5).flatten(0, 1).mean(dim=0)
    assert tint.argmax() == COLOURS[0].argmax() and tint.argmin() == COLOURS[0].argmin()
    assert torch.equal(both[:, 64:], man[:, 64:])
    frames = shown("animation")
    assert len(frames) == 2 and frames.shape[2] == 2 * 64 and not torch.equal(frames[0], frames[1])


def test_the_sheet_has_every_map(several: Trace):
    shown = RouterPictures(several, torch.zeros(1, 64, 64, 3), "all", (0, -1))
    [sheet] = map_sheets(shown)
    (width, height), layers = sheet.index["cell"], sheet.index["layers"]
    assert sheet.index["subjects"] == several.subjects() and sheet.index["steps"] == [0, 1]
    cells = sheet.cells.unflatten(1, (len(layers), width)).unflatten(0, (-1, 2, height))
    for s, subject in enumerate(several.subjects()):
        for k, step in enumerate(several.steps()):
            for name in (layers[0], layers[-1]):
                expected = average_map(step, [name], 0, (height, width), subject)
                assert torch.equal(cells[s, k, :, layers.index(name)], expected)
    assert sheet.cells.std() > 0


def test_the_report_has_the_share_of_each_subject(several: Trace):
    report = RouterVisualize.execute(several, torch.rand(2, 64, 64, 3), "overlay", "all").result[2].splitlines()
    calls = [call for step in several.steps() for call in step]
    for number, name in enumerate(("man", "woman"), start=1):
        names = [spec.name for spec in several.layers]
        share = 100 * torch.stack([average_map(calls, names, i, (8, 8), name) for i in range(2)]).mean()
        assert report[number - 1] == f"{number} {name}: {float(share):.0f} % share, mean over the picture"


def test_masks_are_soft_at_threshold_zero():
    values = torch.tensor([[0.2, 0.3], [0.4, 0.6]])
    torch.testing.assert_close(to_mask(values, 0), torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
    assert to_mask(values, 0.4).tolist() == [[0, 0], [1, 1]]
    assert to_mask(torch.full((2, 2), 0.5), 0.5).tolist() == [[0, 0], [0, 0]]


def test_an_empty_trace_is_explained(family: Family):
    with pytest.raises(ValueError, match="trace is empty.*queue again"):
        RouterVisualize.execute(
            Trace(family.adapter.patcher.model.config.layers), torch.rand(1, 8, 8, 3), "overlay", "all"
        )


def test_a_run_without_subjects_has_an_empty_mask(family: Family):
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0).result
    family.sample(model, family.prompt())
    image = torch.rand(2, 8, 8, 3)
    for mode in MODES:
        pictures, masks, report = RouterVisualize.execute(trace, image, mode, "all", subject="each").result
        assert pictures.shape == image.shape and masks.shape == (2, 8, 8) and not masks.any()
        assert "no prompt of the run has one" in report


def test_a_picture_of_another_run_is_refused(wide: Trace):
    with pytest.raises(ValueError, match="picture 2 of the batch, only for 1"):
        RouterVisualize.execute(wide, torch.rand(2, 64, 128, 3), "overlay", "all")


@pytest.mark.parametrize(
    ("record", "strength", "expected"),
    [
        (
            {"strength": 0.5, "start_percent": 0.15, "guidance": 2.5},
            1.0,
            "strength 0.5, start_percent 0.15, guidance 2.5",
        ),
        ({"strength": 1.0, "guidance": 2.5}, 1.0, ""),
        ("0.5", 1.0, ""),
    ],
    ids=["other settings", "the same settings", "no record"],
)
def test_the_recommendation_of_a_file_is_noted(family: Family, record: Any, strength: float, expected: str):
    adapter = replace(family.adapter, provenance={"recommended": record})
    model, trace = ApplyMoA.execute(family.model, adapter, strength).result
    family.sample(model, family.prompt(subjects=MAN), steps=1)
    lines = [line for line in trace.note.splitlines() if "recommends" in line]
    assert lines == ([f"The adapter recommends {expected}."] if expected else [])
