"""Two adapters on one model: the second's prior is the model with the first, and each reads the subjects of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.multigpu
import cutters
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.run.guidance import SubjectGuidance
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.host.model.patch import KEY, without_adapters
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.host.prompts.whole_prompt import add_subjects
from comfyui_moa.nodes.host.training.run import for_sampling
from comfyui_moa.nodes.sockets import LoadedAdapter, Subject, SubjectSettings
from ipadapter_plus import Extension
from test_ipadapter_plus import PRESET, forget, made, prompt, settings  # noqa: F401
from torch import Tensor

LEFT = torch.zeros(1, 64, 64)
LEFT[:, :, :32] = 1


@pytest.fixture(scope="module")
def family() -> subjects.Family:
    """With a MoA adapter."""
    return subjects.make_family("sd15")


def person(word: str = "man", encoder: str = subjects.ENCODER, seed: int = 11, **given: Any) -> Subject:
    """Of the MoA adapter."""
    return Subject(word, 1, subjects.picture(seed), encoder, SubjectSettings(**given))


def image(kind: str, strength: float = 1.0, **given: Any) -> Subject:
    """Of an IP-Adapter."""
    return settings(made("sd15", kind).subject, strength, **given)


def adapter(kind: str) -> LoadedAdapter:
    return made("sd15", kind).family.adapter


def apply(model: Any, *chosen: tuple[LoadedAdapter, dict[str, Any]]) -> Any:
    for each, options in chosen:
        model = ApplyMoA.execute(model, each, **{"strength": 1.0, "router": PRESET, **options}).result[0]
    return model


def sample(family: subjects.Family, model: Any, *given: Subject, **options: Any) -> Tensor:
    """Image prompts of the whole prompt, and people at word 4."""
    whole, people = [s for s in given if s.tokens], [s for s in given if not s.tokens]
    [[context, extra]] = family.prompt()
    entry = with_subjects(context, extra, [Binding(s, 4) for s in people]) if people else [context, extra]
    return family.sample(model, add_subjects([entry], whole), **options)


BASE, PLUS = ("base", {}), ("plus", {})
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({}, {"weight": 0.4}),
    "own weight types": ({"weight_type": "ease in"}, {"weight": 0.7, "weight_type": "style transfer precise"}),
    "a region": ({"mask": LEFT}, {"scaling": "K+V"}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_image_prompts_add_up_as_in_ipadapter_plus(case: str, family: subjects.Family):
    found = [made("sd15", kind) for kind in ("base", "plus")]
    first, second = (
        Extension("sd15", kind.file["ip_adapter"], [prompt(kind, **options)], middle=True)
        for kind, options in zip(found, CASES[case], strict=True)
    )
    first.others = [second]
    published = sample(family, first.on(family.model), cfg=7.0)
    names = {"weight": "strength", "mask": "region", "scaling": "embeds_scaling", "weight_type": "weight_type"}
    given = [
        image(kind, **{names[name]: value for name, value in options.items()})
        for kind, options in zip(("base", "plus"), CASES[case], strict=True)
    ]
    one, other = (
        apply(family.model, *[(adapter(kind), {}) for kind in order]) for order in (("base", "plus"), ("plus", "base"))
    )
    own = sample(family, one, *given, cfg=7.0)
    assert subjects.rms_difference(published, own) < 1e-5
    ordered = [sample(family, model, *given, cfg=1.0) for model in (one, other)]
    assert subjects.rms_difference(*ordered) < 1e-6
    for alone in ("base", "plus"):
        left = [each for each in given if each.encoder == adapter(alone).encoder]
        single = sample(family, apply(family.model, (adapter(alone), {})), *left, cfg=7.0)
        assert subjects.rms_difference(own, single) > 1e-3


def test_faceid_beside_full_face_is_that_of_ipadapter_plus(family: subjects.Family):
    """The LoRA of the FaceID file changes the projections that the other adapter builds on, in either order."""
    face, full = made("sd15", "faceid plus"), made("sd15", "full")
    first = Extension("sd15", face.file["ip_adapter"], [prompt(face, weight=0.8)], middle=True, lora=0.6)
    first.others = [Extension("sd15", full.file["ip_adapter"], [prompt(full, weight=0.4)], middle=True)]
    published, given = sample(family, first.on(family.model), cfg=7.0), (image("faceid plus", 0.8), image("full", 0.4))
    order = [(adapter("faceid plus"), {"faceid_lora": 0.6}), (adapter("full"), {})]
    for each in (order, order[::-1]):
        assert subjects.rms_difference(published, sample(family, apply(family.model, *each), *given, cfg=7.0)) < 1e-5


def test_a_lora_on_the_pixels_of_a_subject_keeps_what_the_other_adapter_adds(family: subjects.Family):
    """With the router constant, in either order; a region keeps the LoRA, too, out of the rest."""
    given = image("faceid", 0.8), image("plus", 0.4)
    order = [(adapter("faceid"), {"router": "constant"}), (adapter("plus"), {"router": "constant"})]
    one, other = (sample(family, apply(family.model, *each), *given, cfg=1.0) for each in (order, order[::-1]))
    assert subjects.rms_difference(one, other) < 1e-6
    for left, kind in enumerate(("faceid", "plus")):
        single = apply(family.model, (adapter(kind), {"router": "constant"}))
        assert subjects.rms_difference(one, sample(family, single, given[left], cfg=1.0)) > 1e-3
    nowhere = image("faceid", region=torch.full((1, 8, 8), 1e-9))
    assert (
        subjects.rms_difference(
            sample(family, apply(family.model, order[1]), given[1], cfg=1.0),
            sample(family, apply(family.model, *order[::-1]), nowhere, given[1], cfg=1.0),
        )
        < 1e-6
    )


def test_each_has_its_own_part_of_the_sampling(family: subjects.Family):
    """One half of the steps with each: no step has both."""
    given = image("base", end=0.5), image("plus", start=0.5)
    model = apply(family.model, (adapter("base"), {}), (adapter("plus"), {}))
    halves = apply(family.model, (adapter("base"), {"end_percent": 0.5}), (adapter("plus"), {"start_percent": 0.5}))
    always = [replace(each, settings=SubjectSettings()) for each in given]
    assert torch.equal(sample(family, model, *given, steps=4), sample(family, halves, *always, steps=4))


@pytest.mark.parametrize("router", ["learned", "constant", "attention"])
def test_without_strength_one_of_them_is_not_there(router: str, family: subjects.Family):
    given, moa = [person(), image("plus")], (family.adapter, {"router": router})
    for off in (0, 1):
        both = [moa, (adapter("plus"), {})]
        alone = sample(family, apply(family.model, both[1 - off]), given[1 - off])
        both[off] = (both[off][0], {**both[off][1], "strength": 0.0})
        assert torch.equal(alone, sample(family, apply(family.model, *both), *given))
        assert torch.equal(alone, sample(family, apply(family.model, *reversed(both)), *given))


def test_the_prior_of_the_second_is_the_model_with_the_first(family: subjects.Family):
    """With the whole share nothing of the prior is left; an image prompt after it is added to both."""
    moa, plus = (family.adapter, {"router": "constant"}), (adapter("plus"), {"negative_image": "none"})
    person_alone = sample(family, apply(family.model, moa), person())
    assert torch.equal(person_alone, sample(family, apply(family.model, plus, moa), person(), image("plus")))
    after = sample(family, apply(family.model, moa, plus), person(), image("plus"))
    assert subjects.rms_difference(person_alone, after) > 1e-3


def test_two_subjects_have_one_word(family: subjects.Family):
    found = adapter("plus")
    model = apply(family.model, (family.adapter, {"router": "learned"}), (found, {"router": "constant"}))
    [[context, extra]] = family.prompt()
    both = [with_subjects(context, extra, [Binding(person(), 4), Binding(image("plus"), 4)])]
    assert torch.equal(family.sample(model, both), sample(family, model, person(), image("plus")))


def test_batched_rows_areas_and_tiles_are_the_same_alone(family: subjects.Family):
    given = [person(region=LEFT[0]), image("plus", region=1 - LEFT[0])]
    model = apply(family.model, (family.adapter, {"router": "mask"}), (adapter("plus"), {"router": "mask"}))
    tiled = cutters.tiled(model, cutters.boxes((16, 16), 8), 4)
    together = [sample(family, model, *given, size=(8, 8, 2)), sample(family, tiled, *given, size=(16, 16))]
    one = cutters.tiled(model, cutters.boxes((16, 16), 8), 1)
    with subjects.one_by_one(family.model):
        alone = [sample(family, model, *given, size=(8, 8, 2)), sample(family, one, *given, size=(16, 16))]
    for a, b in zip(together, alone, strict=True):
        assert subjects.difference(a, b) < 1e-3
    plain = sample(family, cutters.tiled(family.model, cutters.boxes((16, 16), 8), 4), size=(16, 16))
    assert subjects.rms_difference(plain[..., :8], together[1][..., :8]) > 1e-2


def test_applying_an_adapter_again_replaces_it_alone(family: subjects.Family):
    moa, plus = (family.adapter, {"router": "learned"}), (adapter("plus"), {})
    twice = apply(family.model, (moa[0], {"router": "constant"}), plus, moa)
    given = [person(), image("plus")]
    assert torch.equal(sample(family, twice, *given), sample(family, apply(family.model, plus, moa), *given))
    assert len(twice.get_additional_models_with_key(KEY)) == 2


def test_training_begins_without_any(family: subjects.Family):
    both = apply(family.model, (family.adapter, {"router": "learned"}), (adapter("faceid"), {}))
    assert both.patches and both.wrappers
    plain = without_adapters(both)
    assert not plain.patches and not plain.get_additional_models_with_key(KEY) and plain.get_attachment(KEY) is None
    assert torch.equal(family.sample(family.model, family.prompt()), family.sample(plain, family.prompt()))


def test_the_model_between_has_the_first_alone(family: subjects.Family):
    first = apply(family.model, (family.adapter, {"router": "learned"}))
    before = sample(family, first, person())
    second = apply(first, (adapter("plus"), {}))
    assert subjects.rms_difference(before, sample(family, second, person(), image("plus"))) > 1e-3
    assert torch.equal(before, sample(family, first, person()))
    assert torch.equal(before, sample(family, second, person()))


def test_subjects_of_a_third_adapter_are_refused(family: subjects.Family):
    model = apply(family.model, (family.adapter, {"router": "learned"}), (adapter("plus"), {}))
    unknown, *known = (re.escape(repr(each.encoder)) for each in (adapter("base"), family.adapter, adapter("plus")))
    expected = f"are {unknown}; those of the applied adapters are {known[0]} and {known[1]}. Connect"
    with subjects.counted_calls(family.model) as rows, pytest.raises(ValueError, match=expected):
        sample(family, model, person(), image("base"))
    assert rows == []


def test_each_node_tells_of_its_own_subjects(family: subjects.Family):
    first, moa = ApplyMoA.execute(family.model, family.adapter, 1.0).result
    model, plus = ApplyMoA.execute(first, adapter("plus"), 1.0, router=PRESET).result
    sample(family, model, person(), image("plus"))
    assert [trace.subjects() for trace in (moa, plus)] == [["man"], ["man"]]
    assert 0 < moa.largest_share() < 1 and plus.largest_share() == 1
    sample(family, model, person())
    assert moa.note.startswith("man: active in 2 of 2")
    assert plus.note.startswith("No subject of this adapter takes part: no prompt of the run has one")
    assert "The result is that of the others." in plus.note and not plus.calls


def test_the_background_that_is_kept_is_that_with_the_other_adapter(family: subjects.Family):
    """Where w is 0 (here everywhere), the prediction is that without the keeper's subjects, whichever comes first."""
    nowhere = SubjectGuidance(1.0, family.adapter.patcher.model.config.layers, ramp=(2.0, 3.0))
    plus, given = adapter("plus"), (person(), image("plus"))
    expected = sample(family, apply(family.model, (plus, {})), image("plus"))
    keeping = family.attach(apply(family.model, (plus, {})), guidance=nowhere)
    assert torch.equal(expected, sample(family, keeping, *given))
    first = apply(family.attach(guidance=nowhere), (plus, {}))
    assert torch.equal(expected, sample(family, first, *given))
    with subjects.one_by_one(family.model), subjects.counted_calls(family.model) as rows:
        assert subjects.difference(expected, sample(family, first, *given)) < 1e-4
    assert rows == [1] * 10
    everywhere = SubjectGuidance(1.0, family.adapter.patcher.model.config.layers, ramp=(-2.0, -1.0))
    whole = sample(family, family.attach(apply(family.model, (plus, {})), guidance=everywhere), *given)
    both = sample(family, family.attach(apply(family.model, (plus, {}))), *given)
    assert subjects.difference(whole, both) < 1e-4 < 1e-2 < subjects.difference(expected, both)


def test_two_that_keep_the_background_are_refused(family: subjects.Family):
    first = apply(family.model, (family.adapter, {"router": "learned", "keep_background": True}))
    with pytest.raises(ValueError, match="'keep_background' is on in two 'Apply MoA' nodes of one model"):
        apply(first, (adapter("plus"), {"keep_background": True}))
    apply(first, (family.adapter, {"router": "learned", "keep_background": True}))


def test_two_devices_give_the_picture_of_one(family: subjects.Family, monkeypatch: pytest.MonkeyPatch):
    devices = [torch.device("cpu"), torch.device("cpu", 1)]
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: list(devices))
    made = [subjects.make_adapter(family.model, family.context, seed=seed) for seed in (5, 6)]
    trained = [LoadedAdapter(for_sampling(m.patcher.model.float()), "trained", str(i)) for i, m in enumerate(made)]
    model = apply(family.model, *[(each, {"router": "learned"}) for each in trained])
    given = [Binding(person(encoder=str(i), seed=10 + i), 4 + i) for i in range(2)]
    [[context, extra]] = family.prompt()
    prompts = [[with_subjects(context, extra, given[:count])] for count in (1, 2)]
    with subjects.one_by_one(family.model):
        first, alone = (family.sample(model, prompt) for prompt in prompts)
    assert subjects.difference(first, alone) > 1e-3
    divided = comfy.multigpu.create_multigpu_deepclones(model, 2)
    (clone,) = divided.get_additional_models_with_key("multigpu")
    modules = [[each.model for each in m.get_additional_models_with_key(KEY)] for m in (divided, clone)]
    assert modules[0] == [each.patcher.model for each in trained]
    for there, here in zip(*modules, strict=True):
        weights, copies = here.state_dict(), there.state_dict()
        assert there is not here and all(torch.equal(weights[name], copies[name]) for name in weights)
    with subjects.counted_calls(family.model) as rows, subjects.counted_calls(clone) as others:
        both = family.sample(divided, prompts[1])
    assert len(rows) == len(others) > 0 and torch.equal(both, alone)
