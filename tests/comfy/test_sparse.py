"""Fewer pixels and kept projections in the host's own sampler, against computing everything every time."""

from __future__ import annotations

from typing import Any

import cutters
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.routers.base import MaskRouter
from comfyui_moa.moa_attention.run.budget import AutomaticBudget, Budget
from comfyui_moa.moa_attention.run.prompt_cache import PromptCache
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.host.prompts.conditioning import payload
from comfyui_moa.nodes.host.prompts.payload_names import FIRST
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.sockets import Subject, SubjectSettings
from subjects import Family
from torch import Tensor

MAN = {4: 11}


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> Family:
    return subjects.make_family(request.param)


CORNER = SubjectSettings(region=torch.nn.functional.pad(torch.ones(24, 24), (0, 40, 0, 40)))
"""Resized to any grid, it is at most a quarter of the pixels."""


def with_settings(family: Family, bound: dict[int, tuple[int, SubjectSettings]]) -> Any:
    """A prompt whose subjects, pictures by token, have settings of their own."""
    [[context, extra]] = family.prompt()
    bindings = [
        Binding(Subject("man", 1, subjects.picture(s), subjects.ENCODER, terms), p) for p, (s, terms) in bound.items()
    ]
    return [with_subjects(context, extra, bindings)]


def in_a_corner(family: Family, pictures: dict[int, int]) -> Any:
    return with_settings(family, {p: (s, CORNER) for p, s in pictures.items()})


@pytest.mark.parametrize("pictures", [MAN, {4: 11, 7: 12}], ids=["one", "two"])
def test_a_budget_of_what_subjects_win_is_exact_and_less_is_not(family: Family, pictures: dict[int, int]):
    prompt, size = in_a_corner(family, pictures), (32, 32)
    dense = family.sample(family.attach(router=MaskRouter()), prompt, size=size)
    enough = family.sample(family.attach(router=MaskRouter(), budget=Budget(1 / 4)), prompt, size=size)
    assert subjects.difference(dense, enough) < 1e-4
    less = family.sample(family.attach(router=MaskRouter(), budget=Budget(1 / 16)), prompt, size=size)
    assert subjects.difference(dense, less) > 1e-2


def test_automatic_finds_the_quarter(family: Family):
    prompt, automatic, found = in_a_corner(family, MAN), AutomaticBudget(), []
    model = family.attach(
        router=MaskRouter(), budget=automatic, observers=[subjects.Recorder(lambda spec, _: found.append(spec))]
    )
    got = family.sample(model, prompt, size=(32, 32), steps=5)
    dense = family.sample(family.attach(router=MaskRouter()), prompt, size=(32, 32), steps=5)
    assert subjects.difference(dense, got) < 1e-4
    assert 0.2 < (automatic.measured_share() or 0) < 0.5
    assert len(found) == 5 * len(family.adapter.patcher.model.layers)


def test_automatic_measures_a_subject_that_begins_later(family: Family):
    """It begins between two measurements, in another region than the subject that is active before."""
    later = SubjectSettings(start=0.5, region=torch.flip(CORNER.region, (0, 1)) if CORNER.region is not None else None)
    prompt = with_settings(family, {4: (11, CORNER), 7: (12, later)})
    samples = [
        family.sample(family.attach(router=MaskRouter(), **options), prompt, size=(16, 16), steps=7)
        for options in ({}, {"budget": AutomaticBudget()})
    ]
    assert subjects.difference(*samples) < 1e-4


@pytest.mark.parametrize("pixels", ["1/2", "automatic"])
def test_rows_and_batches_are_the_same_one_by_one(family: Family, pixels: str):
    both = family.prompt(seed=1, subjects=MAN), family.prompt(seed=2, subjects={6: 12})
    (model, _) = ApplyMoA.execute(family.model, family.adapter, 1.0, pixels=pixels).result
    together = family.sample(model, *both, steps=3)

    def alone(row: int) -> Tensor:
        def one_at_a_time(apply: Any, given: dict) -> Tensor:
            x, t, c = given["input"], given["timestep"], given["c"]
            rows = [slice(i, i + 1) for i in range(len(x))]
            options = [{**c["transformer_options"]} for _ in rows]
            for i, o in enumerate(options):
                o["cond_or_uncond"], o["uuids"] = o["cond_or_uncond"][i : i + 1], o["uuids"][i : i + 1]
            parts = [
                {**{k: v[r] if isinstance(v, Tensor) else v for k, v in c.items()}, "transformer_options": o}
                for r, o in zip(rows, options, strict=True)
            ]
            return torch.cat([apply(x[r], t[r], **part) for r, part in zip(rows, parts, strict=True)])

        split = model.clone()
        split.set_model_unet_function_wrapper(one_at_a_time)
        return family.sample(split, *both, steps=3)

    assert subjects.difference(together, alone(0)) < 1e-4


def test_a_picture_is_the_same_alone_and_in_a_batch_whose_regions_differ(family: Family):
    """Its number of pixels does not depend on the others."""
    prompt, noise = in_a_corner(family, MAN), torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    noise[1] *= 4  # another picture is shared out otherwise by the adapter's own routers
    (model, _) = ApplyMoA.execute(family.model, family.adapter, 1.0, pixels="automatic").result

    def sample(start: Tensor) -> Tensor:
        return cutters.sample(model, prompt, family.prompt(2), start)

    both = sample(noise)
    for row in range(2):
        assert subjects.difference(sample(noise[row : row + 1])[0], both[row]) < 1e-3


def test_words_are_projected_once_a_run_and_never_across_runs(family: Family, monkeypatch: pytest.MonkeyPatch):
    prompt, other = family.prompt(subjects=MAN), family.prompt(seed=9, subjects=MAN)
    projected: list[int] = []
    layer: Any = next(layer for layer in family.adapter.patcher.model.layers.values() if layer.spec.is_cross)
    keys_values = layer.keys_values
    monkeypatch.setattr(layer, "keys_values", lambda c, base: projected.append(c.shape[1]) or keys_values(c, base))
    model = family.attach()
    first = family.sample(model, prompt, steps=3)
    assert projected == [77, 1, 1, 1], "all words once, then the subject's in every step"
    second = family.sample(model, other, steps=3)
    assert projected == [77, 1, 1, 1] * 2
    projected.clear()
    monkeypatch.setattr(PromptCache, "number", lambda *_: 0)
    assert subjects.difference(first, family.sample(family.attach(), prompt, steps=3)) < 1e-4
    assert subjects.difference(second, family.sample(family.attach(), other, steps=3)) < 1e-4
    assert projected == [77] * 6


def test_words_are_not_kept_where_rows_are_prompts_of_their_own(family: Family):
    one, two = family.prompt(seed=1, subjects=MAN), family.prompt(seed=3, subjects={4: 12})
    [[c1, e1]], [[c2, e2]] = one, two
    rows = [payload(context.bindings, context.shape[1]) for context in (c1, c2)]
    extra = {k: torch.cat([v, e2[k]]) for k, v in e1.items() if isinstance(v, Tensor)}
    extra |= {"model_conds": {k: type(v)(torch.cat([row[k].cond for row in rows])) for k, v in rows[0].items()}}
    batch = [[torch.cat([c1, c2]), {**extra, FIRST.sources: [b.subject for b in c1.bindings]}]]
    got = family.sample(family.attach(), batch, size=(8, 8, 2))
    for row, prompt in enumerate((one, two)):
        assert subjects.difference(family.sample(family.attach(), prompt, size=(8, 8, 2))[row], got[row]) < 1e-4
