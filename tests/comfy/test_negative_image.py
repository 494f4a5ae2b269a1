"""Negative images of image prompts: as IPAdapter_plus gives them, at the places of the subjects, through everything that rebuilds prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.routers import WordRouter
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.adapters import open_adapter
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.files.subject_files import restore_subject, store_subject
from comfyui_moa.nodes.host.prompts.negative_image import NegativeImage
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.sockets import LoadedAdapter, Subject, SubjectSettings
from ipadapter_plus import Extension, Prompt
from test_image_prompts import FEATURES, MAN, TOKENS, Imported, image_tokens, write_file
from torch import Tensor


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    made = subjects.make_family("sd15")
    path = tmp_path_factory.mktemp("negative") / "base.bin"
    file = write_file(made.model, made.context, path, "base")
    patcher, header = open_adapter(path)
    adapter = LoadedAdapter(patcher, path.name, patcher.model.identity, header.licence, header.provenance)
    return Imported(made.name, made.model, made.context, made.pooled, adapter, file)


def subject(family: Imported, seed: int = 11, negative: int | None = 12, **settings: Any) -> Subject:
    """With random image tokens, and random ones for negative prompts."""
    other = None if negative is None else image_tokens(family, negative)
    made = Subject("man", 1, image_tokens(family, seed), family.adapter.encoder, SubjectSettings(**settings), TOKENS)
    return replace(made, negative=other)


def prompt(family: Imported, *bound: Subject, seed: int = 1) -> host.Conditioning:
    [[context, extra]] = host.conditioning(family.context, pooled=family.pooled, seed=seed)
    return [with_subjects(context, extra, [Binding(each, MAN + 3 * i) for i, each in enumerate(bound)])]


def theirs(family: Imported, **options: Any) -> Tensor:
    tokens, negative = (image_tokens(family, seed).unflatten(1, (TOKENS, -1)) for seed in (11, 12))
    model = Extension("sd15", family.file["ip_adapter"], [Prompt(tokens, negative)], middle=True).on(family.model)
    return family.sample(model, family.prompt(), **options)


def ours(family: Imported, positive: Any, negative: Any = None, **options: Any) -> Tensor:
    applied = {
        name: options.pop(name) for name in ("negative_image", "negative_subject", "keep_background") if name in options
    }
    model, _ = ApplyMoA.execute(
        family.model, family.adapter, 1.0, router=options.pop("router", "constant"), **applied
    ).result
    return family.sample(model, positive, negative, **options)


@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_guidance_with_the_published_negative_is_that_of_ipadapter_plus(family: Imported, cfg: float):
    published = theirs(family, cfg=cfg)
    assert subjects.rms_difference(published, ours(family, prompt(family, subject(family)), cfg=cfg)) < 1e-5
    if cfg > 1:
        without = ours(family, prompt(family, subject(family)), cfg=cfg, negative_image="none")
        assert subjects.rms_difference(published, without) > 0.1


def test_a_subject_given_by_hand_takes_the_place_of_the_published_one(family: Imported):
    published, by_hand = theirs(family, cfg=7.0), subject(family, seed=12, negative=None)
    given = ours(family, prompt(family, subject(family, negative=13)), cfg=7.0, negative_subject=by_hand)
    assert subjects.rms_difference(published, given) < 1e-5
    stranger = replace(by_hand, encoder="another")
    with pytest.raises(ValueError, match="'negative_subject' of 'Apply MoA' must be encoded with the applied adapter"):
        ours(family, prompt(family, subject(family)), negative_subject=stranger)


def test_a_negative_prompt_with_a_subject_of_its_own_keeps_it(family: Imported):
    own = prompt(family, subject(family, seed=13, negative=None), seed=2)
    kept = ours(family, prompt(family, subject(family)), own, cfg=7.0)
    assert torch.equal(kept, ours(family, prompt(family, subject(family)), own, cfg=7.0, negative_image="none"))


def test_what_other_nodes_make_of_the_negative_prompt_gets_it_too(family: Imported):
    """Zeroed copies of the prompt, parts with masks and areas, and several prompts in a list."""
    positive = prompt(family, subject(family))
    [[context, extra]] = positive
    zeroed = [[torch.zeros_like(context), dict(extra)]]
    plain = [[torch.zeros(context.shape), {}]]
    expected = theirs(family, negative=plain, cfg=7.0)
    assert subjects.rms_difference(expected, ours(family, positive, zeroed, cfg=7.0)) < 1e-5
    halves = [[c, {**e, "mask": m, "mask_strength": 1.0}] for m in halved() for c, e in family.prompt(seed=2)]
    expected = theirs(family, negative=halves, cfg=7.0)
    assert subjects.rms_difference(expected, ours(family, positive, halves, cfg=7.0)) < 1e-5


def halved() -> list[Tensor]:
    left = torch.zeros(1, 64, 64)
    left[..., :32] = 1
    return [left, 1 - left]


def test_rows_and_single_calls_agree_and_strength_0_is_exact(family: Imported):
    positive = prompt(family, subject(family), subject(family, seed=21, negative=22, strength=0.5))
    together = ours(family, positive, cfg=7.0, size=(8, 8, 2))
    with subjects.one_by_one(family.model):
        assert subjects.rms_difference(together, ours(family, positive, cfg=7.0, size=(8, 8, 2))) < 1e-5
    base = family.sample(family.model, family.prompt(), cfg=7.0)
    assert torch.equal(ours(family, prompt(family, subject(family, strength=0.0)), cfg=7.0), base)
    off, _ = ApplyMoA.execute(family.model, family.adapter, 0.0, router="constant").result
    assert torch.equal(family.sample(off, prompt(family, subject(family)), cfg=7.0), base)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_the_negative_image_is_where_the_router_finds_the_word(family: Imported, one_by_one: bool):
    """With the tokens of the subject as its own negative both prompts change alike, at the same pixels."""
    recorded: list[Tensor] = []
    positive = prompt(family, subject(family))
    model = family.attach(
        router=WordRouter(),
        negative_image=NegativeImage(),
        observers=[subjects.Recorder(lambda _spec, routing: recorded.append(routing.personal))],
    )
    if one_by_one:
        with subjects.one_by_one(family.model):
            family.sample(model, positive, cfg=7.0, steps=4)
        calls = [recorded[i : i + 16] for i in range(0, len(recorded), 16)]
        rows = [
            torch.cat([a, b])
            for one, other in zip(calls[::2], calls[1::2], strict=True)
            for a, b in zip(one, other, strict=True)
        ]
    else:
        family.sample(model, positive, cfg=7.0, steps=4)
        rows = recorded
    assert all(len(each) == 2 and torch.equal(each[0], each[1]) for each in rows)
    assert max(float(each.max()) for each in rows) > 0.5


def test_the_trace_shows_the_prompt_alone(family: Imported):
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0, router="attention").result
    family.sample(model, prompt(family, subject(family)), cfg=7.0, steps=4)
    assert all(len(call.views) == len(values) == 1 for call in trace.calls for values in call.maps.values())
    assert trace.subjects() == ["man"]


def test_keep_background_keeps_the_negative_prompt_outside_too(family: Imported):
    """Where subjects have no share both prompts are the base model's own, so that the picture is."""
    region = torch.zeros(64, 64)
    region[:, :32] = 1
    positive = prompt(family, subject(family, region=region))
    once: dict[str, Any] = {"cfg": 7.0, "steps": 2, "size": (32, 32)}
    kept = ours(family, positive, keep_background=True, router="mask", **once)
    base = family.sample(family.model, family.prompt(), **once)
    assert torch.equal(base[..., 26:], kept[..., 26:])
    assert subjects.rms_difference(kept[..., :4], base[..., :4]) > 1e-2


@pytest.mark.parametrize(("negative_image", "rows"), [("as published", 4), ("none", 3)])
@pytest.mark.parametrize("router", ["constant", "attention"])
def test_keep_background_computes_every_row_with_pictures_twice(
    family: Imported, router: str, negative_image: str, rows: int
):
    """With the negative image these are both; the router's own maps take no further row after its first step."""
    model, _ = ApplyMoA.execute(
        family.model, family.adapter, 1.0, router=router, keep_background=True, negative_image=negative_image
    ).result
    with subjects.counted_calls(family.model) as counted:
        family.sample(model, prompt(family, subject(family)), cfg=7.0, steps=4)
    assert counted[-3:] == [rows] * 3


@pytest.mark.parametrize("kind", ["base", "plus", "faceid plus"])
def test_encoding_adds_the_published_negative_and_files_keep_it(
    family: Imported, kind: str, tmp_path: Path, base: Path
):
    register_adapter_folders()
    path = tmp_path / "file.bin"
    write_file(family.model, family.context, path, kind)
    patcher, header = open_adapter(path)
    adapter = LoadedAdapter(patcher, path.name, patcher.model.identity, header.licence)
    vision, face = host.clip_vision(FEATURES, FEATURES), torch.randn(1, 512)
    picture = torch.rand(1, 40, 30, 3, generator=torch.Generator().manual_seed(0))
    (made,) = SubjectEncode.execute(adapter, picture, "man", clip_vision=vision, face=face).result
    black = vision.encode_image(torch.zeros(1, 224, 224, 3))["penultimate_hidden_states"]
    inputs = {"embedding": torch.zeros(1, FEATURES), "face": torch.zeros(1, 512), "patches": black}
    expected = patcher.model.projection(*(inputs[name] for name in patcher.model.requires)).flatten(1)
    torch.testing.assert_close(made.negative, expected, rtol=1e-5, atol=1e-5)
    store_subject(made, f"negative_{kind.replace(' ', '_')}", None)
    loaded, *_ = restore_subject(f"negative_{kind.replace(' ', '_')}_00001_.safetensors", "", 0)
    assert torch.equal(loaded.negative, made.negative) and torch.equal(loaded.features, made.features)


def test_a_subject_whose_negative_is_not_known_is_named(family: Imported):
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result
    family.sample(model, prompt(family, subject(family, negative=None)), cfg=7.0)
    assert "the negative image of 'man' is not known, so negative prompts get none" in trace.note
