"""Two adapters on one model beside nodes that zero, average, rebuild and cut prompts and pictures, and beside broken features."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import cutters
import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.routers.base import MaskRouter, TrainingFreeRouter
from comfyui_moa.moa_attention.routers.words import WordRouter
from comfyui_moa.moa_attention.run.trace import Trace, average_map
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.sockets import LoadedAdapter, Subject, SubjectSettings
from subjects import Family
from test_cut_regions import FIRST, SECOND, upscaler_tile
from test_reused_prompts import average, rebuilt, with_two_models, zeroed
from test_schedules import SCHEDULES, WINDOW, expected_steps
from torch import Tensor

ENCODERS = ("one", "other")
PLACES = (4, 9)
TOLERANCE = 1e-3
"""In standard deviations: batched matrix products round otherwise than single ones."""


@pytest.fixture(scope="module")
def family() -> Family:
    return subjects.make_family("sd15")


@pytest.fixture(scope="module")
def adapters(family: Family) -> list[LoadedAdapter]:
    made = (subjects.make_adapter(family.model, family.context, seed=seed).patcher for seed in (5, 6))
    return [LoadedAdapter(each, "a.safetensors", name) for each, name in zip(made, ENCODERS, strict=True)]


def applied(family: Family, adapters: list[LoadedAdapter], *options: dict[str, Any], model: Any = None) -> Any:
    """The family's model with an adapter for each of the options."""
    for adapter, given in zip(adapters, options or ({}, {}), strict=False):
        model = family.attach(model, adapter, **given)
    return model


def person(which: int, **settings: Any) -> Subject:
    """Of one of the adapters."""
    word = ("man", "woman")[which]
    return Subject(word, 1, subjects.picture(11 + which), ENCODERS[which], SubjectSettings(**settings))


def prompt(family: Family, *given: Subject, seed: int = 1, places: tuple[int, int] = PLACES) -> Any:
    [[context, extra]] = family.prompt(seed)
    return [with_subjects(context, extra, [Binding(s, at) for s, at in zip(given, places, strict=False)])]


def test_a_zeroed_prompt_has_no_subject_of_either(family: Family, adapters: list[LoadedAdapter]):
    model, positive = applied(family, adapters), prompt(family, person(0), person(1))
    got = family.sample(model, positive, zeroed(positive))
    assert torch.equal(got, family.sample(model, positive, zeroed(family.prompt())))
    assert subjects.difference(got, family.sample(model, positive, positive)) > 0.01


def test_averaged_on_one_token_each_keeps_its_weight(family: Family, adapters: list[LoadedAdapter]):
    model, same = applied(family, adapters), (4, 4)
    made = average(prompt(family, person(0), places=same), prompt(family, person(1), seed=3, places=same), 0.75)
    [[context, extra]] = average(family.prompt(1), family.prompt(3), 0.75)
    weighted = [Binding(person(0, strength=0.75), 4), Binding(person(1, strength=0.25), 4)]
    got = family.sample(model, made)
    assert torch.equal(got, family.sample(model, [with_subjects(context, extra, weighted)]))
    assert subjects.difference(got, family.sample(model, [with_subjects(context, extra, weighted[:1])])) > 1e-3


def test_a_rebuilt_conditioning_keeps_both(family: Family, adapters: list[LoadedAdapter]):
    model, positive = applied(family, adapters), prompt(family, person(0), person(1))
    assert torch.equal(family.sample(model, rebuilt(positive)), family.sample(model, positive))


def test_a_plain_model_for_the_negative_prompt_ignores_both(family: Family, adapters: list[LoadedAdapter]):
    positive, plain = prompt(family, person(0), person(1)), host.sd15(seed=1)
    model = applied(family, adapters)
    negative = prompt(family, person(0), person(1), seed=2)
    got = with_two_models(family, positive, negative, plain, model)
    assert torch.equal(got, with_two_models(family, positive, family.prompt(2), plain, model))


def test_a_picture_in_a_window_is_itself_alone_and_in_both_traces(family: Family, adapters: list[LoadedAdapter]):
    layers, noise = adapters[0].patcher.model.config.layers, cutters.noise(16, 16, 2)
    names = [spec.name for spec in layers if spec.name.startswith("output_11")]

    def run(start: Tensor, length: int = 0) -> tuple[Tensor, list[Trace]]:
        traces = [Trace(layers), Trace(layers)]
        model = applied(family, adapters, *({"router": WordRouter(), "observers": [trace]} for trace in traces))
        model = cutters.windows(model, length) if length else model
        return cutters.sample(model, prompt(family, person(0), person(1)), family.prompt(2), start), traces

    together, traces = run(noise, 1)
    for picture, one in enumerate(noise):
        alone, expected = run(one[None])
        assert subjects.difference(alone, together[picture : picture + 1]) < TOLERANCE
        for own, other in zip(traces, expected, strict=True):
            shown, wanted = (average_map(t.calls, names, n, (16, 16)) for t, n in ((own, picture), (other, 0)))
            torch.testing.assert_close(shown, wanted, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", cutters.KINDS)
@pytest.mark.parametrize("router", [WordRouter, MaskRouter])
def test_a_tile_does_not_depend_on_its_batch(
    family: Family, adapters: list[LoadedAdapter], router: type[TrainingFreeRouter], kind: type[cutters.Tiles]
):
    noise, boxes = cutters.noise(16, 16), cutters.boxes((16, 16), 8)
    cond = prompt(family, person(0, region=FIRST), person(1, region=SECOND))
    one, four = (
        cutters.sample(
            cutters.tiled(
                applied(family, adapters, *({"router": router()} for _ in ENCODERS)), boxes, batch, kind=kind
            ),
            cond,
            family.prompt(2),
            noise,
        )
        for batch in (1, 4)
    )
    assert subjects.difference(one, four) < TOLERANCE
    base = cutters.sample(cutters.tiled(family.model, boxes, 4, kind=kind), family.prompt(), family.prompt(2), noise)
    assert subjects.difference(base, four) > 0.1


def test_an_upscaled_tile_has_its_part_of_both_regions(family: Family, adapters: list[LoadedAdapter]):
    box = (8, 8, 8, 8)
    model = applied(family, adapters, *({"router": MaskRouter()} for _ in ENCODERS))
    part, regions = cutters.cut(cutters.noise(16, 16), box), (FIRST, SECOND)
    whole = prompt(family, *(person(n, region=region) for n, region in enumerate(regions)))
    got = cutters.sample(model, upscaler_tile(whole, box, 16), family.prompt(2), part)
    small = (torch.nn.functional.interpolate(r[None, None], size=(16, 16), mode="bilinear")[0, 0] for r in regions)
    own = prompt(family, *(person(n, region=cutters.cut(region, box)) for n, region in enumerate(small)))
    expected = cutters.sample(model, own, family.prompt(2), part)
    assert subjects.difference(expected, got) < TOLERANCE
    assert subjects.difference(expected, cutters.sample(model, whole, family.prompt(2), part)) > 0.1


@pytest.mark.parametrize("broken", [0, 1])
def test_broken_features_of_one_stay_where_it_has_a_share(family: Family, adapters: list[LoadedAdapter], broken: int):
    """Seen behind the first cross-attention: the layers after it mix all pixels."""
    left = torch.zeros(8, 8)
    left[:, :4] = 1
    regions = (left, 1 - left) if broken == 0 else (1 - left, left)
    model = applied(family, adapters, *({"router": MaskRouter()} for _ in ENCODERS))
    block, seen = family.model.model.diffusion_model.get_submodule("input_blocks.1.1.transformer_blocks.0"), []
    handle = block.norm3.register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))
    given = [person(n, region=region) for n, region in enumerate(regions)]
    try:
        family.sample(model, prompt(family, *given), steps=1, cfg=1.0)
        given[broken] = replace(given[broken], features=torch.full((1, subjects.FEATURE), torch.nan))
        family.sample(model, prompt(family, *given), steps=1, cfg=1.0)
    finally:
        handle.remove()
    right, wrong = (each.unflatten(1, (8, 8)) for each in seen)
    assert torch.equal(right[:, :, 5:], wrong[:, :, 5:]) and right.isfinite().all()  # the border itself is soft
    assert wrong[:, :, :4].isnan().all()


def test_each_window_follows_the_schedule_that_samples(family: Family, adapters: list[LoadedAdapter]):
    notes: list[list[str]] = [[], []]
    options = {"start": WINDOW[0], "end": WINDOW[1]}
    model = applied(family, adapters, {**options, "notify": notes[0].append}, {"notify": notes[1].append})
    model = SCHEDULES["continuous"](model)
    family.sample(model, prompt(family, person(0), person(1)), steps=20)
    assert notes[0] == [f"man: active in {expected_steps(model)} of 20 evaluations."] != notes[1]
    assert notes[1] == ["woman: active in 20 of 20 evaluations."]


def test_an_empty_window_of_one_is_told(
    family: Family, adapters: list[LoadedAdapter], caplog: pytest.LogCaptureFixture
):
    notes: list[str] = []
    model = applied(family, adapters, {"start": 0.6, "end": 0.4}, {"notify": notes.append})
    with caplog.at_level(logging.INFO):
        got = family.sample(model, prompt(family, person(0), person(1)))
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("MoA:")]
    assert lines == [
        "MoA: No subject of this adapter takes part: 'start_percent' 0.6 in 'Apply MoA' is not below 'end_percent' 0.4. The result is "
        "that of the others."
    ]
    assert notes == ["woman: active in 2 of 2 evaluations."]
    alone = family.attach(adapter=adapters[1])
    assert torch.equal(got, family.sample(alone, prompt(family, person(1), places=(PLACES[1], PLACES[0]))))


def test_only_entries_of_the_latents_size_have_four_dimensions(family: Family, adapters: list[LoadedAdapter]):
    """Tiled samplers cut every tensor of four dimensions."""
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(apply: Any, given: dict[str, Any]) -> Any:
        shapes.update({name: v.shape for name, v in given["c"].items() if name.startswith("moa_")})
        return apply(given["input"], given["timestep"], **given["c"])

    model = applied(family, adapters)
    model.set_model_unet_function_wrapper(watch)
    family.sample(model, prompt(family, person(0, region=FIRST), person(1, region=SECOND)))
    assert {name for name in shapes if name.startswith("moa_barred")} == {"moa_barred", "moa_barred_1"}
    assert [name for name, shape in shapes.items() if len(shape) == 4] == ["moa_pixels"]
    assert shapes["moa_pixels"][-2:] == (8, 8)


def test_the_model_of_negative_prompts_has_the_adapters_in_the_same_order(
    family: Family, adapters: list[LoadedAdapter]
):
    """Its calls are computed with the settings of the first model, by their places."""
    first, positive = applied(family, adapters), prompt(family, person(0), person(1))
    negative = prompt(family, person(1), seed=2)
    second = applied(family, adapters, model=host.sd15(seed=1))
    with_two_models(family, positive, negative, second, first)
    for other in (adapters[::-1], adapters[1:]):
        second = applied(family, other, model=host.sd15(seed=1))
        without = with_two_models(family, positive, family.prompt(2), second, first)
        assert torch.equal(without, with_two_models(family, positive, family.prompt(2), host.sd15(seed=1), first))
        with pytest.raises(ValueError, match="model for negative prompts has other adapters"):
            with_two_models(family, positive, negative, second, first)
