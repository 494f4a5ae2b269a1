"""Strength, window and region of single subjects, with learned routers and without."""

from __future__ import annotations

from dataclasses import replace

import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.untrained import ConstantRouter, MaskRouter
from comfyui_moa.nodes import text
from comfyui_moa.nodes.settings import MoASubjectSettings
from comfyui_moa.nodes.sockets import Subject
from subjects import Family
from torch import Tensor

MAN, WOMAN = 4, 9


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> Family:
    return subjects.make_family(request.param)


def prompt(family: Family, who: dict[int, Subject]) -> host.Conditioning:
    """Subjects on their tokens."""
    [[context, extra]] = host.conditioning(family.context, pooled=family.pooled, seed=1)
    bindings = [text.Binding(subject, at) for at, subject in who.items()]
    return [[context, {**extra, **text.payload(context, extra, bindings)}]]


def somebody(seed: int, *terms: float, region: Tensor | None = None) -> Subject:
    subject = Subject("man", 1, subjects.picture(seed), subjects.ENCODER)
    return MoASubjectSettings.execute(subject, *terms, region=region).result[0] if terms else subject


def test_settings_that_say_nothing_change_nothing(family: Family):
    model = family.attach()
    plain = family.sample(model, prompt(family, {MAN: somebody(11)}))
    assert torch.equal(family.sample(model, prompt(family, {MAN: somebody(11, 1.0, 0.0, 1.0)})), plain)
    everywhere = somebody(11, 1.0, 0.0, 1.0, region=torch.ones(1, 5, 7))
    assert torch.equal(family.sample(model, prompt(family, {MAN: everywhere})), plain)


@pytest.mark.parametrize("terms", [(0.0, 0.0, 1.0), (1.0, 0.5, 0.5)], ids=["strength 0", "empty window"])
def test_a_silenced_subject_is_the_plain_word_and_the_other_speaks_on(family: Family, terms: tuple[float, ...]):
    model = family.attach()
    alone = family.sample(model, prompt(family, {WOMAN: somebody(12)}))
    both = family.sample(model, prompt(family, {MAN: somebody(11, *terms), WOMAN: somebody(12)}))
    assert subjects.difference(alone, both) < 1e-4
    loud = family.sample(model, prompt(family, {MAN: somebody(11), WOMAN: somebody(12)}))
    assert subjects.difference(alone, loud) > 1e-3


def test_without_trained_routers_a_silenced_subject_is_the_base_model(family: Family):
    base = family.sample(family.model, family.prompt())
    model = family.attach(router=ConstantRouter())
    assert torch.equal(family.sample(model, prompt(family, {MAN: somebody(11, 0.0, 0.0, 1.0)})), base)
    half = family.sample(model, prompt(family, {MAN: somebody(11, 0.5, 0.0, 1.0)}))
    whole = family.sample(model, prompt(family, {MAN: somebody(11)}))
    assert subjects.difference(base, half) > 1e-3 and subjects.difference(half, whole) > 1e-3


def test_a_window_begins_and_ends(family: Family):
    model = family.attach()
    pictures = [
        family.sample(model, prompt(family, {MAN: somebody(11, 1.0, *window)}), steps=4)
        for window in ((0.0, 1.0), (0.0, 0.4), (0.4, 1.0))
    ]
    assert min(subjects.difference(a, b) for a, b in zip(pictures, pictures[1:] + pictures[:1], strict=True)) > 1e-3


@pytest.mark.parametrize("router", [None, MaskRouter()], ids=["learned", "mask"])
def test_nobody_is_routed_out_of_the_region(family: Family, router: MaskRouter | None):
    region = torch.zeros(1, 8, 8)
    region[:, :, :4] = 1
    seen: list[tuple[Tensor, tuple[int, int]]] = []
    model = family.attach(
        router=router, record=lambda *_: lambda _spec, routing: seen.append((routing.personal, routing.grid))
    )
    family.sample(model, prompt(family, {MAN: somebody(11, 1.0, 0.0, 1.0, region=region)}))
    maps = [spoke.unflatten(1, grid) for spoke, grid in seen if min(grid) >= 4]
    assert maps
    middles = [spoke.shape[-1] // 2 for spoke in maps]  # the border itself is soft
    outside = [spoke[..., middle + 1 :].max() for spoke, middle in zip(maps, middles, strict=True)]
    inside = [spoke[..., : middle - 1].mean() for spoke, middle in zip(maps, middles, strict=True)]
    assert max(outside) < 0.01 and sum(inside) / len(inside) > 0.05


def test_everybody_in_their_own_region(family: Family):
    left = torch.zeros(1, 8, 8)
    left[:, :, :4] = 1
    model = family.attach(router=MaskRouter())

    def pair(first: Tensor, second: Tensor) -> Tensor:
        who = {MAN: somebody(11, 1.0, 0.0, 1.0, region=first), WOMAN: somebody(12, 1.0, 0.0, 1.0, region=second)}
        return family.sample(model, prompt(family, who))

    assert subjects.difference(pair(left, 1 - left), pair(left, left)) > 1e-3


def test_mask_without_regions_is_refused_before_sampling(family: Family):
    model = family.attach(router=MaskRouter())
    with pytest.raises(ValueError, match="router is 'mask', but a subject of the prompt has no region"):
        family.sample(model, prompt(family, {MAN: somebody(11)}))
    with pytest.raises(ValueError, match="region of subject 'man' is empty"):
        somebody(11, 1.0, 0.0, 1.0, region=torch.zeros(1, 4, 4))


def test_prompts_with_and_without_settings_share_a_batch(family: Family):
    model = family.attach()
    some = prompt(family, {MAN: somebody(11, 0.5, 0.0, 1.0), WOMAN: somebody(12)})
    negative = prompt(family, {MAN: somebody(13)})
    together = family.sample(model, some, negative)
    with subjects.one_by_one(family.model):
        apart = family.sample(model, some, negative)
    assert subjects.difference(together, apart) < 1e-4


def test_settings_replace_settings():
    first = somebody(11, 0.5, 0.1, 0.9)
    again = MoASubjectSettings.execute(first, 0.7, 0.0, 1.0).result[0]
    assert again == replace(first, terms=again.terms) and again.terms.strength == 0.7 and again.terms.start == 0.0
