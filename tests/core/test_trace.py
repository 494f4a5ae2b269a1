"""The trace of a run and the pictures made of it."""

from collections.abc import Sequence

import pytest
import torch
from routed import WHOLE, call_info, spec

from moa_attention.method.layer import Routing
from moa_attention.pictures import LABEL_HEIGHT, SCALE, contact_sheet, heat_map, label, overlay, smooth_to
from moa_attention.run.trace import Trace, average_map
from moa_attention.run.view import View

FINE = spec("input_1_0_attn1", 0, 8, 8, 1, False)
COARSE = spec("middle_0_0_attn2", 1, 8, 8, 1, True)


def routing(value: torch.Tensor, grid: tuple[int, int]) -> Routing:
    """R_1 as (R,) one value per row, on a grid."""
    personal = value[:, None].expand(-1, grid[0] * grid[1])
    empty = torch.zeros(len(value), 1, 8)
    return Routing(personal, empty, empty, grid)


def record(
    trace: Trace, sigma: float, shown: Sequence[int | View | None], values: list[float], grid: tuple[int, int] = (4, 6)
) -> None:
    """A call with a row for each whole picture, by its number, or view."""
    views = [WHOLE._replace(picture=each) if isinstance(each, int) else each for each in shown]
    observe = trace.begin_call(call_info(sigma, views))
    assert observe is not None
    observe(FINE, routing(torch.tensor(values), grid))
    observe(COARSE, routing(torch.tensor(values) / 2, (grid[0] // 2, grid[1] // 2)))


@pytest.fixture
def trace() -> Trace:
    return Trace((FINE, COARSE))


def test_calls_are_grouped_by_noise_level_from_the_highest(trace: Trace):
    for sigma in (2.0, 14.0, 2.0, 5.0):
        record(trace, sigma, [0], [0.5])
    steps = trace.steps()
    assert [float(calls[0].sigma) for calls in steps] == [14.0, 5.0, 2.0]
    assert [len(calls) for calls in steps] == [1, 1, 2]


def test_a_part_of_a_picture_counts_at_its_pixels_only(trace: Trace):
    """Whole maps on (4, 6), a tile of their upper left half on (4, 3), of a picture of 8 × 12 latent pixels."""
    record(trace, 14.0, [0], [0.4])
    record(trace, 14.0, [WHOLE._replace(width=6)], [0.8], grid=(4, 3))
    [step] = trace.steps()
    expected = torch.full((4, 6), 0.4)
    expected[:, :3] = 0.6
    torch.testing.assert_close(average_map(step, [FINE.name], 0, (4, 6)), expected, atol=1e-3, rtol=0)


def test_tiles_of_a_picture_make_up_its_map(trace: Trace):
    tiles = [WHOLE._replace(picture=1, left=left, width=4) for left in (0, 4, 8)]
    record(trace, 14.0, tiles[:2], [0.1, 0.2], grid=(4, 2))
    record(trace, 14.0, [tiles[2], WHOLE._replace(width=4)], [0.3, 0.9], grid=(4, 2))
    expected = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.3, 0.3]).expand(4, 6)
    torch.testing.assert_close(average_map(trace.calls, [FINE.name], 1, (4, 6)), expected, atol=1e-3, rtol=0)


def test_pixels_without_a_map_are_the_priors(trace: Trace):
    record(trace, 14.0, [WHOLE._replace(top=4, height=4)], [0.8], grid=(2, 6))
    expected = torch.tensor([0.0, 0.0, 0.8, 0.8])[:, None].expand(4, 6)
    torch.testing.assert_close(average_map(trace.calls, [FINE.name], 0, (4, 6)), expected, atol=1e-3, rtol=0)


def test_a_map_of_unknown_place_is_explained(trace: Trace):
    record(trace, 14.0, [None], [0.8])
    with pytest.raises(ValueError, match="another node shifted or rearranged the pixels"):
        average_map(trace.calls, [FINE.name], 0, (4, 6))


def test_a_new_run_clears_the_trace_and_a_call_without_maps_is_no_step(trace: Trace):
    record(trace, 1.0, [0], [0.5])
    trace.begin_run()
    assert trace.steps() == []
    trace.begin_call(call_info())
    assert trace.steps() == []


def test_maps_are_detached_halves_on_the_layers_grid(trace: Trace):
    observe = trace.begin_call(call_info())
    assert observe is not None
    personal = torch.rand(1, 24, requires_grad=True)
    observe(FINE, Routing(personal, personal, personal, (4, 6)))
    trace.end_run()
    stored = trace.calls[0].maps[FINE.name]
    assert stored.dtype == torch.float16
    assert not stored.requires_grad
    assert torch.equal(stored[0], personal[0].detach().half().reshape(4, 6))


def test_average_is_over_calls_layers_and_rows_of_one_picture(trace: Trace):
    record(trace, 2.0, [0, 1], [0.2, 0.8])
    record(trace, 1.0, [0, 1, 0], [0.4, 0.6, 0.6])
    calls = trace.calls
    first = average_map(calls, [FINE.name], 0, (4, 6))
    assert first.shape == (4, 6)
    torch.testing.assert_close(first, torch.full((4, 6), (0.2 + 0.4 + 0.6) / 3), atol=1e-3, rtol=0)
    second = average_map(calls, [FINE.name, COARSE.name], 1, (4, 6))
    torch.testing.assert_close(second, torch.full((4, 6), (0.8 + 0.4 + 0.6 + 0.3) / 4), atol=1e-3, rtol=0)


def test_a_picture_that_was_not_recorded_is_refused(trace: Trace):
    record(trace, 2.0, [0], [0.2])
    with pytest.raises(ValueError, match="picture 4 of the batch, only for 1"):
        average_map(trace.calls, [FINE.name], 3, (4, 6))


def test_heat_map_runs_along_the_scale():
    colours = heat_map(torch.tensor([[0.0, 1.0], [0.2, -3.0]]))
    assert colours.shape == (2, 2, 3)
    assert torch.equal(colours[0, 0], SCALE[0])
    assert torch.equal(colours[0, 1], SCALE[-1])
    torch.testing.assert_close(colours[1, 0], SCALE[1])
    assert torch.equal(colours[1, 1], SCALE[0])
    lightness = heat_map(torch.linspace(0, 1, 50)[None])[0].mean(-1)
    assert torch.all(lightness.diff() > 0)


def test_overlay_is_grey_below_and_coloured_above():
    picture, values = torch.rand(3, 4, 3), torch.rand(3, 4)
    torch.testing.assert_close(overlay(picture, values, 0.0), picture.mean(-1, keepdim=True).expand(-1, -1, 3))
    assert torch.equal(overlay(picture, values, 1.0), heat_map(values))


def test_smoothing_reaches_the_pictures_size():
    values = smooth_to(torch.tensor([[0.0, 1.0]]), (8, 20))
    assert values.shape == (8, 20)
    assert values[:, 0].max() == 0
    assert values[:, -1].min() == 1
    assert torch.all(values.diff(dim=1) >= 0)


def test_contact_sheet_has_a_row_per_layer_and_a_column_per_step():
    maps = [torch.zeros(2, 3), torch.ones(2, 3)]
    sheet = contact_sheet([("first", maps), ("second", maps[::-1])], ["step 0", "step 1"], cell=30)
    margin, height = 8 * len("second"), 20
    assert sheet.shape == (LABEL_HEIGHT + 2 * height, margin + 2 * 30, 3)
    middle = [LABEL_HEIGHT + height // 2, LABEL_HEIGHT + height + height // 2]
    assert torch.equal(sheet[middle[0], margin + 15], SCALE[0])
    assert torch.equal(sheet[middle[0], margin + 45], SCALE[-1])
    assert torch.equal(sheet[middle[1], margin + 15], SCALE[-1])
    assert torch.equal(sheet[middle[1], margin + 45], SCALE[0])


def test_label_is_written():
    strip = label("step 3", 60)
    assert strip.shape == (LABEL_HEIGHT, 60, 3)
    assert strip.max() > 0.8
    assert label("", 60).max() == 0
