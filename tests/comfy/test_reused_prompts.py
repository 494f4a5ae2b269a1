"""Prompts with subjects after nodes that zero, join, average, scale, cut or rebuild them: the subjects follow their tokens."""

from __future__ import annotations

import copy
import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import host
import pytest
import subjects
import torch
from comfyui_moa.nodes.host.prompts.subject_context import ENCODED, Binding, SubjectContext, with_subjects
from comfyui_moa.nodes.sockets import Subject, SubjectSettings
from subjects import Family

PLACE, OTHER, CHUNK = 4, 9, 77


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> Family:
    return subjects.make_family(request.param)


def zeroed(prompt: Any) -> Any:
    return host.core_node("ConditioningZeroOut", "zero_out", prompt)


def concat(to: Any, source: Any) -> Any:
    return host.core_node("ConditioningConcat", "concat", to, source)


def average(to: Any, source: Any, strength: float) -> Any:
    return host.core_node("ConditioningAverage", "addWeighted", to, source, strength)


def multiplied(prompt: Any, factor: float) -> Any:
    return host.core_node("ConditioningMultiply", "multiply", prompt, factor)


def rebuilt(prompt: Any) -> Any:
    """What nodes do that know of nothing but text and pooled text."""
    return [[context, {"pooled_output": extra.get("pooled_output")}] for context, extra in prompt]


def person(seed: int = 11, strength: float = 1.0, word: str = "man") -> Subject:
    return Subject(word, 1, subjects.picture(seed), subjects.ENCODER, SubjectSettings(strength))


def prompt(family: Family, seed: int, *bound: tuple[int, Subject]) -> Any:
    """A CONDITIONING with subjects on tokens."""
    [[context, extra]] = family.prompt(seed)
    return (
        [with_subjects(context, extra, [Binding(subject, at) for at, subject in bound])]
        if bound
        else [[context, extra]]
    )


def placed(conditioning: Any, *bound: tuple[int, Subject]) -> Any:
    """A prompt that other nodes made of ordinary ones, with subjects put on its tokens afterwards."""
    return [
        with_subjects(context, extra, [Binding(subject, at) for at, subject in bound])
        for context, extra in conditioning
    ]


MAN, WOMAN = person(11), person(12, word="woman")
Made = Callable[[Family, Any, Any], Any]
CASES: dict[str, tuple[Callable[[Family], Any], Callable[[Family], Any]]] = {
    "concat to": (
        lambda f: concat(prompt(f, 1, (PLACE, MAN)), prompt(f, 3)),
        lambda f: placed(concat(prompt(f, 1), prompt(f, 3)), (PLACE, MAN)),
    ),
    "concat from": (
        lambda f: concat(prompt(f, 1), prompt(f, 3, (OTHER, MAN))),
        lambda f: placed(concat(prompt(f, 1), prompt(f, 3)), (CHUNK + OTHER, MAN)),
    ),
    "concat of two": (
        lambda f: concat(prompt(f, 1, (PLACE, MAN)), prompt(f, 3, (OTHER, WOMAN))),
        lambda f: placed(concat(prompt(f, 1), prompt(f, 3)), (PLACE, MAN), (CHUNK + OTHER, WOMAN)),
    ),
    "average at 0": (lambda f: average(prompt(f, 1, (PLACE, MAN)), prompt(f, 3), 0.0), lambda f: prompt(f, 3)),
    "average at 1": (
        lambda f: average(prompt(f, 1, (PLACE, MAN)), prompt(f, 3, (OTHER, WOMAN)), 1.0),
        lambda f: prompt(f, 1, (PLACE, MAN)),
    ),
    "average from": (
        lambda f: average(prompt(f, 1), prompt(f, 3, (PLACE, MAN)), 0.75),
        lambda f: placed(average(prompt(f, 1), prompt(f, 3), 0.75), (PLACE, person(strength=0.25))),
    ),
    "average of two": (
        lambda f: average(prompt(f, 1, (PLACE, MAN)), prompt(f, 3, (OTHER, WOMAN)), 0.75),
        lambda f: placed(
            average(prompt(f, 1), prompt(f, 3), 0.75), (PLACE, person(strength=0.75)), (OTHER, person(12, 0.25))
        ),
    ),
    "average with the same subject": (
        lambda f: average(prompt(f, 1, (PLACE, MAN)), prompt(f, 3, (PLACE, MAN)), 0.3),
        lambda f: placed(average(prompt(f, 1), prompt(f, 3), 0.3), (PLACE, MAN)),
    ),
    "multiply": (
        lambda f: multiplied(prompt(f, 1, (PLACE, MAN)), 0.5),
        lambda f: placed(multiplied(prompt(f, 1), 0.5), (PLACE, person(strength=0.5))),
    ),
    "multiply by more than 1": (
        lambda f: multiplied(prompt(f, 1, (PLACE, MAN)), 1.5),
        lambda f: placed(multiplied(prompt(f, 1), 1.5), (PLACE, MAN)),
    ),
    "zeroed": (lambda f: zeroed(prompt(f, 1, (PLACE, MAN))), lambda f: zeroed(prompt(f, 1))),
    "multiply by 0": (lambda f: multiplied(prompt(f, 1, (PLACE, MAN)), 0.0), lambda f: multiplied(prompt(f, 1), 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_subjects_follow_their_tokens_and_weights(family: Family, case: str, caplog: pytest.LogCaptureFixture):
    made, expected = (make(family) for make in CASES[case])
    model, negative = family.attach(), prompt(family, 2, (OTHER, WOMAN))
    with caplog.at_level(logging.WARNING):
        got = family.sample(model, made, negative)
    assert torch.equal(got, family.sample(model, expected, negative))
    assert not caplog.records


def test_a_zeroed_prompt_as_negative_has_no_subject(family: Family):
    positive = prompt(family, 1, (PLACE, MAN))
    model = family.attach()
    got = family.sample(model, positive, zeroed(positive))
    assert torch.equal(got, family.sample(model, positive, zeroed(prompt(family, 1))))
    [[context, extra]] = zeroed(prompt(family, 1))
    kept = [with_subjects(context + 1e-30, extra, [Binding(MAN, PLACE)])]
    assert subjects.difference(got, family.sample(model, positive, kept)) > 0.01


def test_a_rebuilt_conditioning_keeps_its_subjects(family: Family):
    positive, model = prompt(family, 1, (PLACE, MAN)), family.attach()
    again = rebuilt(positive)
    assert torch.equal(family.sample(model, again), family.sample(model, positive))
    cut = [[context[:, :PLACE], extra] for context, extra in again]
    assert torch.equal(
        family.sample(model, cut), family.sample(model, [[plain[:, :PLACE], e] for plain, e in prompt(family, 1)])
    )


LOST: dict[str, tuple[Callable[[Family], Any], str]] = {
    "cut off": (
        lambda f: [[c[:, :PLACE], e] for c, e in prompt(f, 1, (PLACE, MAN))],
        "'man' is not.*cut the prompt to 4",
    ),
    "same token": (
        lambda f: average(prompt(f, 1, (PLACE, MAN)), prompt(f, 3, (PLACE, WOMAN)), 0.75),
        "'woman' is not in this run: .*averaged.*'man' takes the same token",
    ),
    "changed": (
        lambda f: [[c.abs(), e] for c, e in prompt(f, 1, (PLACE, MAN))],
        "changed the embedding of 'man'.*full strength",
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_what_is_lost_or_not_known_is_reported_once(case: str, caplog: pytest.LogCaptureFixture):
    family = subjects.make_family("sd15")
    make, message = LOST[case]
    made = make(family)
    with caplog.at_level(logging.WARNING):
        family.sample(family.attach(), made, made, steps=1)
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == 1
    assert re.search(message, found[0])


def test_an_unknown_operation_keeps_the_subject_of_the_dict(family: Family):
    made = [[c.abs(), e] for c, e in prompt(family, 1, (PLACE, MAN))]
    expected = placed([[c.abs(), e] for c, e in prompt(family, 1)], (PLACE, MAN))
    assert torch.equal(family.sample(family.attach(), made), family.sample(family.attach(), expected))


def test_copies_keep_subjects_and_files_hold_ordinary_tensors(tmp_path: Path):
    family = subjects.make_family("sd15")
    [[context, extra]] = prompt(family, 1, (PLACE, MAN))
    again, _ = copy.deepcopy([context, extra])
    assert isinstance(again, SubjectContext) and again.bindings == context.bindings
    shallow = copy.copy(context)
    assert shallow is not context and isinstance(shallow, SubjectContext) and shallow.bindings == context.bindings
    assert copy.copy(extra[ENCODED]).context is context
    torch.save(context, tmp_path / "context.pt")
    loaded = torch.load(tmp_path / "context.pt", weights_only=True)
    assert type(loaded) is torch.Tensor and torch.equal(loaded, torch.Tensor(context))
    half = context.clone().mul_(0.5)
    assert half.bindings[0].weight == 0.5 and context.bindings[0].weight == 1
    assert (
        type(torch.cat([context, context])) is torch.Tensor and type(context.sum(dim=1, keepdim=True)) is torch.Tensor
    )


def test_of_a_batch_of_prompts_the_subject_is_in_its_own(caplog: pytest.LogCaptureFixture):
    """As nodes of other packs batch prompts: all embeddings, and the dict of the first."""
    family = subjects.make_family("sd15")
    first, second = prompt(family, 1, (PLACE, MAN)), prompt(family, 3)
    joined = [[torch.cat([first[0][0], second[0][0]]), first[0][1]]]
    with caplog.at_level(logging.WARNING):
        got = family.sample(family.attach(), joined, size=(8, 8, 2), steps=1)
    for row, alone in enumerate((first, second)):
        expected = family.sample(family.attach(), alone, size=(8, 8, 2), steps=1)
        assert subjects.difference(got[row], expected[row]) < 1e-4
    assert any("several prompts into a batch" in record.getMessage() for record in caplog.records)
    same = [[torch.cat([first[0][0], first[0][0]]), first[0][1]]]
    got, expected = (family.sample(family.attach(), each, size=(8, 8, 2)) for each in (same, first))
    assert subjects.difference(got, expected) < 1e-4


def test_a_saved_conditioning_loads_without_its_subjects(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """As Save Training Dataset and Load Training Dataset do it."""
    family = subjects.make_family("sd15")
    region = SubjectSettings(region=torch.ones(8, 8))
    made = prompt(family, 1, (PLACE, Subject("man", 1, subjects.picture(11), subjects.ENCODER, region)))
    torch.save({"conditioning": [made]}, tmp_path / "shard.pkl")
    [loaded] = torch.load(tmp_path / "shard.pkl", weights_only=True)["conditioning"]
    with caplog.at_level(logging.WARNING):
        got = family.sample(family.attach(), loaded, steps=1)
    assert torch.equal(got, family.sample(family.model, prompt(family, 1), steps=1))
    assert any("loaded from a file" in record.getMessage() for record in caplog.records)
    copied = copy.deepcopy(made)
    assert torch.equal(family.sample(family.attach(), copied, steps=1), family.sample(family.attach(), made, steps=1))
    copied = [[context.abs(), extra] for context, extra in copied]
    assert subjects.difference(got, family.sample(family.attach(), copied, steps=1)) > 0.01


def test_without_apply_moa_the_host_sees_an_ordinary_prompt(family: Family):
    """Other nodes cut and batch the entries that the rows of a call carry: there must be none."""
    seen: list[dict[str, Any]] = []

    def watch(apply: Any, given: dict[str, Any]) -> Any:
        seen.append({k: type(v) for k, v in given["c"].items()})
        return apply(given["input"], given["timestep"], **given["c"])

    def run(model: Any, positive: Any) -> torch.Tensor:
        model = model.clone()
        model.set_model_unet_function_wrapper(watch)
        return family.sample(model, positive)

    plain = run(family.model, prompt(family, 1))
    names = seen.copy()
    seen.clear()
    assert torch.equal(run(family.model, prompt(family, 1, (PLACE, MAN))), plain)
    assert seen == names
    seen.clear()
    run(family.attach(), prompt(family, 1, (PLACE, MAN)))
    assert len(seen) == len(names)


def test_only_entries_of_the_latents_size_have_four_dimensions(family: Family):
    """Tiled samplers cut every tensor of four dimensions."""
    shapes: set[tuple[int, ...]] = set()

    def watch(apply: Any, given: dict[str, Any]) -> Any:
        shapes.update(v.shape for k, v in given["c"].items() if k.startswith("moa_"))
        return apply(given["input"], given["timestep"], **given["c"])

    model = family.attach()
    model.set_model_unet_function_wrapper(watch)
    family.sample(model, prompt(family, 1, (PLACE, person(strength=0.5))))
    assert {len(shape) for shape in shapes} == {2, 3, 4}
    assert all(shape[-2:] == (8, 8) for shape in shapes if len(shape) == 4)


def with_two_models(family: Family, positive: Any, negative: Any, second: Any, first: Any = None) -> torch.Tensor:
    """The host's guider that computes the negative prompt with a second model; `first` is the family's model with MoA."""
    nodes = importlib.import_module("comfy_extras.nodes_custom_sampler")
    if not hasattr(nodes, "DualModelGuider"):
        pytest.skip("this host has no guider with two models")
    guider = nodes.DualModelGuider.execute(first or family.attach(), positive, 4.0, second, negative)
    sampler, noise = importlib.import_module("comfy.samplers").sampler_object("euler"), nodes.Noise_RandomNoise(1)
    given = (noise, guider.result[0], sampler, torch.tensor([5.0, 1.0, 0.0]), host.empty_latent(8, 8))
    with torch.inference_mode():
        return nodes.SamplerCustomAdvanced.execute(*given).result[0]["samples"]


def test_a_guider_whose_second_model_has_no_adapter(family: Family):
    """The host calls the second model with the wrappers of the first."""
    plain, other = (getattr(host, family.name)(seed=1) for _ in range(2))
    positive, with_subject = prompt(family, 1, (PLACE, MAN)), prompt(family, 2, (OTHER, WOMAN))
    got = with_two_models(family, positive, with_subject, plain)
    assert torch.equal(got, with_two_models(family, positive, prompt(family, 2), plain))
    assert subjects.difference(got, with_two_models(family, positive, with_subject, family.attach(other))) > 0.01


def test_a_guider_whose_second_model_has_an_adapter_with_another_fusion(family: Family):
    other = replace(subjects.make_adapter(family.model, family.context, seed=6), encoder="another fusion")
    second = family.attach(getattr(host, family.name)(seed=1), adapter=other)
    positive, with_subject = prompt(family, 1, (PLACE, MAN)), prompt(family, 2, (OTHER, WOMAN))
    with pytest.raises(ValueError, match="those of the applied adapter are 'another fusion'"):
        with_two_models(family, positive, with_subject, second)
    plain = getattr(host, family.name)(seed=1)
    without = with_two_models(family, positive, prompt(family, 2), second)
    assert torch.equal(without, with_two_models(family, positive, prompt(family, 2), plain)), (
        "its prompt has no subject"
    )
