"""Strength, window and region of single subjects, with learned routers and without."""

from __future__ import annotations

from dataclasses import replace

import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.routers.base import ConstantRouter, MaskRouter
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.settings import MoASubjectSettings
from comfyui_moa.nodes.sockets import Subject
from subjects import Family
from torch import Tensor

MAN, WOMAN = 4, 9


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> Family:
    return subjects.make_family(request.param)


def prompt(family: Family, bound: dict[int, Subject]) -> host.Conditioning:
    """Subjects on their tokens."""
    [[context, extra]] = host.conditioning(family.context, pooled=family.pooled, seed=1)
    bindings = [Binding(subject, at) for at, subject in bound.items()]
    return [with_subjects(context, extra, bindings)]


def encoded(seed: int, *terms: float, region: Tensor | None = None) -> Subject:
    subject = Subject("man", 1, subjects.picture(seed), subjects.ENCODER)
    return MoASubjectSettings.execute(subject, *terms, region=region).result[0] if terms else subject


def test_default_settings_change_nothing(family: Family):
    model = family.attach()
    plain = family.sample(model, prompt(family, {MAN: encoded(11)}))
    assert torch.equal(family.sample(model, prompt(family, {MAN: encoded(11, 1.0, 0.0, 1.0)})), plain)
    everywhere = encoded(11, 1.0, 0.0, 1.0, region=torch.ones(1, 5, 7))
    assert torch.equal(family.sample(model, prompt(family, {MAN: everywhere})), plain)


INACTIVE = pytest.mark.parametrize("terms", [(0.0, 0.0, 1.0), (1.0, 0.5, 0.5)], ids=["strength 0", "empty window"])


@INACTIVE
@pytest.mark.parametrize("router", [None, ConstantRouter()], ids=["learned", "constant"])
def test_an_inactive_subject_is_the_base_model(family: Family, router: ConstantRouter | None, terms: tuple[float, ...]):
    base = family.sample(family.model, family.prompt())
    model = family.attach(router=router)
    assert torch.equal(family.sample(model, prompt(family, {MAN: encoded(11, *terms)})), base)
    both = prompt(family, {MAN: encoded(11, *terms), WOMAN: encoded(12, *terms)})
    assert torch.equal(family.sample(model, both), base)


@pytest.mark.parametrize("router", [None, ConstantRouter()], ids=["learned", "constant"])
def test_the_effect_grows_with_the_strength(family: Family, router: ConstantRouter | None):
    base = family.sample(family.model, family.prompt(), steps=1)
    model = family.attach(router=router)
    effects = [
        float((family.sample(model, prompt(family, {MAN: encoded(11, w, 0.0, 1.0)}), steps=1) - base).square().mean())
        for w in (0.1, 0.3, 0.6, 1.0)
    ]
    assert effects[0] > 0 and effects == sorted(effects)
    assert effects[0] < effects[-1] / 10


@INACTIVE
def test_an_inactive_subject_leaves_its_place_to_the_prior_and_the_other_keeps_its_own(
    family: Family, terms: tuple[float, ...]
):
    """With learned routers, which do not distinguish subjects: seen in the first layer, where nothing differs before it."""
    first: list[Tensor] = []
    observer = subjects.Recorder(lambda _spec, routing: first.append(routing.personal))
    model = family.attach(observers=[observer])

    def sample(man: Subject) -> tuple[Tensor, Tensor]:
        first.clear()
        sampled = family.sample(model, prompt(family, {MAN: man, WOMAN: encoded(12)}))
        return sampled, first[0]

    picture, share = sample(encoded(11, *terms))
    active, whole = sample(encoded(11))
    part = share / whole  # the border between the two places is soft
    assert torch.all(part <= 1) and (part == 0).any() and (part == 1).any()
    assert torch.equal(sample(encoded(13, *terms))[0], picture), "the picture of an inactive subject has no influence"
    assert subjects.difference(active, picture) > 1e-3


@INACTIVE
def test_without_places_an_inactive_subject_is_its_plain_word(family: Family, terms: tuple[float, ...]):
    """With a router that mixes one prompt of all subjects."""
    model, woman = family.attach(router=ConstantRouter()), {WOMAN: encoded(12)}

    def sample(man: Subject | None = None) -> Tensor:
        return family.sample(model, prompt(family, woman if man is None else {**woman, MAN: man}))

    inactive, alone = sample(encoded(11, *terms)), sample()
    assert torch.equal(sample(encoded(13, *terms)), inactive), "the picture of an inactive subject has no influence"
    assert subjects.difference(inactive, alone) < 1e-4
    half, whole = sample(encoded(11, 0.5, 0.0, 1.0)), sample(encoded(11))
    assert torch.equal(sample(encoded(11, 1.0, 0.0, 1.0)), whole)
    assert min(subjects.difference(alone, half), subjects.difference(half, whole)) > 1e-3


def test_half_the_strength_is_half_the_share(family: Family):
    shares: list[Tensor] = []
    observer = subjects.Recorder(lambda _spec, routing: shares.append(routing.personal))
    model = family.attach(observers=[observer])
    for strength in (1.0, 0.5, 1.5):
        family.sample(model, prompt(family, {MAN: encoded(11, strength, 0.0, 1.0)}), steps=1)
    one, half, more = shares[:: len(family.adapter.patcher.model.layers)]
    assert torch.equal(half, one / 2) and torch.equal(more, one)


def test_a_window_begins_and_ends(family: Family):
    model = family.attach()
    pictures = [
        family.sample(model, prompt(family, {MAN: encoded(11, 1.0, *window)}), steps=4)
        for window in ((0.0, 1.0), (0.0, 0.4), (0.4, 1.0))
    ]
    assert min(subjects.difference(a, b) for a, b in zip(pictures, pictures[1:] + pictures[:1], strict=True)) > 1e-3


def test_subjects_with_one_window_are_those_of_apply_moa(family: Family):
    """Nothing divides the picture between subjects that are alike."""
    both = prompt(family, {MAN: encoded(11, 1.0, 0.0, 0.4), WOMAN: encoded(12, 1.0, 0.0, 0.4)})
    expected = family.sample(family.attach(end=0.4), prompt(family, {MAN: encoded(11), WOMAN: encoded(12)}), steps=4)
    assert torch.equal(family.sample(family.attach(), both, steps=4), expected)


@pytest.mark.parametrize("router", [None, MaskRouter()], ids=["learned", "mask"])
def test_subjects_are_confined_to_their_region(family: Family, router: MaskRouter | None):
    region = torch.zeros(1, 8, 8)
    region[:, :, :4] = 1
    observed: list[tuple[Tensor, tuple[int, int]]] = []
    model = family.attach(
        router=router,
        observers=[subjects.Recorder(lambda _spec, routing: observed.append((routing.personal, routing.grid)))],
    )
    family.sample(model, prompt(family, {MAN: encoded(11, 1.0, 0.0, 1.0, region=region)}))
    maps = [share.unflatten(1, grid) for share, grid in observed if min(grid) >= 4]
    assert maps
    middles = [share.shape[-1] // 2 for share in maps]  # the border itself is soft
    outside = [share[..., middle + 1 :].max() for share, middle in zip(maps, middles, strict=True)]
    inside = [share[..., : middle - 1].mean() for share, middle in zip(maps, middles, strict=True)]
    assert max(outside) < 0.01 and sum(inside) / len(inside) > 0.05


def test_each_subject_has_a_region_of_its_own(family: Family):
    left = torch.zeros(1, 8, 8)
    left[:, :, :4] = 1
    model = family.attach(router=MaskRouter())

    def pair(first: Tensor, second: Tensor) -> Tensor:
        bound = {MAN: encoded(11, 1.0, 0.0, 1.0, region=first), WOMAN: encoded(12, 1.0, 0.0, 1.0, region=second)}
        return family.sample(model, prompt(family, bound))

    assert subjects.difference(pair(left, 1 - left), pair(left, left)) > 1e-3


@pytest.mark.parametrize("router", [None, MaskRouter()], ids=["learned", "mask"])
def test_a_region_for_each_picture_of_a_batch(family: Family, router: MaskRouter | None):
    """The first two pictures have a region each; the last holds for all further ones."""
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4], masks[1, :, 4:] = 1, 1
    model, size = family.attach(router=router), (16, 16, 3)

    def sampled(region: Tensor) -> Tensor:
        return family.sample(model, prompt(family, {MAN: encoded(11, 0.5, 0.0, 1.0, region=region)}), size=size)

    left, right, both = sampled(masks[:1]), sampled(masks[1:]), sampled(masks)
    expected = torch.cat([left[:1], right[1:]])
    assert subjects.difference(expected, both) < 1e-4 < 1e-3 < subjects.difference(left, right)
    with subjects.one_by_one(family.model):
        assert subjects.difference(expected, sampled(masks)) < 1e-4


def test_mask_without_regions_is_refused_before_sampling(family: Family):
    model = family.attach(router=MaskRouter())
    with pytest.raises(ValueError, match="router of 'Apply MoA' is 'mask', but a subject of the prompt has no region"):
        family.sample(model, prompt(family, {MAN: encoded(11)}))
    with pytest.raises(ValueError, match="region of subject 'man' is empty"):
        encoded(11, 1.0, 0.0, 1.0, region=torch.zeros(1, 4, 4))


def test_prompts_with_and_without_settings_share_a_batch(family: Family):
    model = family.attach()
    some = prompt(family, {MAN: encoded(11, 0.5, 0.0, 1.0), WOMAN: encoded(12)})
    negative = prompt(family, {MAN: encoded(13)})
    together = family.sample(model, some, negative)
    with subjects.one_by_one(family.model):
        apart = family.sample(model, some, negative)
    assert subjects.difference(together, apart) < 1e-4


def test_settings_replace_settings():
    first = encoded(11, 0.5, 0.1, 0.9)
    again = MoASubjectSettings.execute(first, 0.7, 0.0, 1.0).result[0]
    assert (
        again == replace(first, settings=again.settings)
        and again.settings.strength == 0.7
        and again.settings.start == 0.0
    )
