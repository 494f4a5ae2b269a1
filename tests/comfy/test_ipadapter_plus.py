"""Image prompts against what IPAdapter_plus computes, kind by kind and setting by setting, to 1e-5 of the latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.run.strength import LayerStrength
from comfyui_moa.moa_attention.run.weight_types import WEIGHT_TYPES
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.adapters import open_adapter
from comfyui_moa.nodes.host.prompts.whole_prompt import add_subjects
from comfyui_moa.nodes.settings import MoASubjectSettings
from comfyui_moa.nodes.sockets import LoadedAdapter, Subject
from ipadapter_plus import Extension, Prompt
from test_image_prompts import FEATURES, TOKENS, write_file
from torch import Tensor

PRESET = "IPAdapter_plus with middle block"
FACE = torch.randn(1, 512, generator=torch.Generator().manual_seed(4))


@dataclass
class Kind:
    """A file of one kind on a tiny model, and a picture encoded with it."""

    family: subjects.Family
    file: dict[str, dict[str, Tensor]]
    subject: Subject

    @property
    def base(self) -> str:
        return self.family.name

    def tokens(self, which: str = "features") -> Tensor:
        """(1,K,T) image tokens of the picture, or of the negative image."""
        return getattr(self.subject, which).unflatten(1, (-1, self.family.context))


@cache
def made(base: str, kind: str) -> Kind:
    family = subjects.make_family(base)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.bin"
        file = write_file(family.model, family.context, path, kind)
        patcher, header = open_adapter(path)
    adapter = LoadedAdapter(patcher, path.name, patcher.model.identity, header.licence)
    picture = torch.rand(1, 48, 32, 3, generator=torch.Generator().manual_seed(0))
    vision = host.clip_vision(FEATURES, FEATURES)
    (subject,) = SubjectEncode.execute(adapter, picture, "man", clip_vision=vision, face=FACE, fit="crop centre").result
    return Kind(replace(family, adapter=adapter), file, subject)


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Models that outlive the tests complain when the interpreter ends."""
    yield
    made.cache_clear()


def sampled(found: Kind, model: Any, positive: Any, **options: Any) -> Tensor:
    return found.family.sample(model, positive, **options)


def ours(
    found: Kind, *given: Subject, router: str = PRESET, applied: dict[str, Any] | None = None, **options: Any
) -> Tensor:
    family = found.family
    model, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router=router, **(applied or {})).result
    return sampled(found, model, add_subjects(family.prompt(), given), **options)


def theirs(found: Kind, prompts: Sequence[Prompt], middle: bool = True, lora: float = 0.0, **options: Any) -> Tensor:
    model = Extension(found.base, found.file["ip_adapter"], prompts, middle, lora).on(found.family.model)
    return sampled(found, model, found.family.prompt(), **options)


def prompt(found: Kind, **options: Any) -> Prompt:
    return Prompt(found.tokens(), found.tokens("negative"), **options)


def settings(subject: Subject, strength: float = 1.0, start: float = 0.0, end: float = 1.0, **options: Any) -> Subject:
    return MoASubjectSettings.execute(subject, strength, start, end, **options).result[0]


def assert_equal(found: Kind, published: Tensor, own: Tensor) -> None:
    """Up to rounding, which SDXL's 70 layers and guidance add up."""
    assert subjects.rms_difference(published, own) < (2e-5 if found.base == "sdxl" else 1e-5)
    plain = found.family.sample(found.family.model, found.family.prompt())
    assert published.shape != plain.shape or subjects.rms_difference(plain, own) > 1e-3


KINDS = [("sd15", "base"), ("sd15", "plus"), ("sd15", "full"), ("sdxl", "base"), ("sdxl", "plus")]


@pytest.mark.parametrize(("base", "kind"), KINDS)
@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_every_kind(base: str, kind: str, cfg: float):
    found = made(base, kind)
    assert_equal(found, theirs(found, [prompt(found)], cfg=cfg), ours(found, found.subject, cfg=cfg))


def test_the_middle_block_is_left_out_as_there_or_included():
    found = made("sd15", "plus")
    without = theirs(found, [prompt(found)], middle=False)
    assert_equal(found, without, ours(found, found.subject, router="IPAdapter_plus"))
    assert subjects.rms_difference(without, ours(found, found.subject)) > 1e-5


@pytest.mark.parametrize("kind", ["faceid", "faceid plus"])
@pytest.mark.parametrize(("lora", "weight"), [(0.6, 0.7), (1.0, 1.0)])
def test_faceid_with_the_lora_of_its_file(kind: str, lora: float, weight: float):
    """The LoRA acts on the whole model, whatever the weight is."""
    found, options = made("sd15", kind), {"applied": {"faceid_lora": lora}, "cfg": 7.0}
    subject = settings(found.subject, weight)
    published = theirs(found, [prompt(found, weight=weight)], lora=lora, cfg=7.0)
    assert_equal(found, published, ours(found, subject, **options))
    without = theirs(found, [prompt(found, weight=weight)], middle=False, lora=lora, cfg=7.0)
    assert_equal(found, without, ours(found, subject, router="IPAdapter_plus", **options))
    assert subjects.rms_difference(published, ours(found, subject, applied={"faceid_lora": 0.3}, cfg=7.0)) > 1e-3


def test_the_lora_of_a_file_is_on_the_model_once():
    found, family = made("sd15", "faceid"), made("sd15", "faceid").family
    once, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router=PRESET, faceid_lora=0.6).result
    twice, _ = ApplyMoA.execute(once, family.adapter, 1.0, router=PRESET, faceid_lora=0.6).result
    pictures = [sampled(found, model, add_subjects(family.prompt(), [found.subject])) for model in (once, twice)]
    assert torch.equal(*pictures)
    off, _ = ApplyMoA.execute(once, family.adapter, 0.0, router=PRESET).result
    other, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result
    assert other.patches_uuid == family.model.patches_uuid != once.patches_uuid
    plain = sampled(found, family.model, family.prompt())
    assert once.patches and not off.patches and not family.model.patches
    assert torch.equal(plain, sampled(found, off, family.prompt()))
    assert subjects.rms_difference(plain, sampled(found, once, family.prompt())) > 1e-3


@pytest.mark.parametrize("router", [PRESET, "constant"])
def test_a_run_without_a_subject_tells_whether_the_lora_is_on_the_model(router: str):
    found = made("sd15", "faceid")
    family = found.family
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0, router=router).result
    picture, plain = sampled(found, model, family.prompt()), sampled(found, family.model, family.prompt())
    on_model = "The result is the base model's with the LoRA of the FaceID file, which acts on the whole model."
    assert torch.equal(picture, plain) == (router == "constant")
    assert trace.note.split(" sampler. ")[1] == (
        "The result is the base model's." if router == "constant" else on_model
    )


@pytest.mark.parametrize("weight", [0.6, 2.0])
def test_version_2_of_faceid_plus_adds_the_weighted_picture_to_the_face(weight: float):
    """As there: the face's tokens, and what they become by attending to the picture. Version 1 is the second alone."""
    found, vision = made("sd15", "faceid plus"), host.clip_vision(FEATURES, FEATURES)
    face_crop = torch.rand(1, 224, 224, 3, generator=torch.Generator().manual_seed(8))
    own = {"clip_vision": vision, "face": FACE, "fit": "crop centre"}
    adapter, black = found.family.adapter, torch.zeros(1, 224, 224, 3)
    projection = adapter.patcher.model.projection

    def published(face: Tensor, picture: Tensor, second: bool) -> Tensor:
        patches = vision.encode_image(picture)["penultimate_hidden_states"]
        tokens = projection.norm(projection.proj(face).unflatten(-1, (-1, found.family.context)))
        attended = projection.perceiver_resampler.attend(tokens, patches)
        return (tokens + weight * attended if second else attended).flatten(1)

    for version in ("1", "2"):
        options = {**own, "faceid_plus": version, "faceid_weight": weight}
        (subject,) = SubjectEncode.execute(adapter, face_crop, "man", **options).result
        face = FACE / FACE.norm()
        torch.testing.assert_close(subject.features, published(face, face_crop, version == "2"), rtol=1e-4, atol=1e-5)
        negative = published(torch.zeros_like(FACE), black, version == "2")
        torch.testing.assert_close(subject.negative, negative, rtol=1e-4, atol=1e-5)


def test_faceid_with_the_lora_on_the_model():
    """As there, at another weight: a LoRA loader has it, and faceid_lora is 0."""
    found = made("sd15", "faceid")
    published = theirs(found, [prompt(found, weight=0.7)], lora=0.6, cfg=7.0)
    model = Extension("sd15", found.file["ip_adapter"], [], True, 0.6).on(found.family.model)
    changed = replace(found, family=replace(found.family, model=model))
    assert_equal(found, published, ours(changed, settings(found.subject, 0.7), applied={"faceid_lora": 0.0}, cfg=7.0))


@pytest.mark.parametrize("weight_type", list(WEIGHT_TYPES))
def test_every_weight_type(weight_type: str):
    found = made("sd15", "base")
    published = theirs(found, [prompt(found, weight=0.8, weight_type=weight_type)], cfg=4.0)
    assert_equal(found, published, ours(found, settings(found.subject, 0.8, weight_type=weight_type), cfg=4.0))


@pytest.mark.parametrize("weight_type", ["ease out", "style transfer", "style and composition", "composition precise"])
def test_weight_types_of_sdxl(weight_type: str):
    found = made("sdxl", "base")
    published = theirs(found, [prompt(found, weight_type=weight_type)], cfg=4.0)
    assert_equal(found, published, ours(found, settings(found.subject, weight_type=weight_type), cfg=4.0))


@pytest.mark.parametrize("scaling", ["V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty"])
@pytest.mark.parametrize("weight", [0.8, -0.5])
def test_every_embeds_scaling(scaling: str, weight: float):
    found = made("sd15", "plus")
    published = theirs(found, [prompt(found, weight=weight, scaling=scaling)], cfg=4.0)
    assert_equal(found, published, ours(found, settings(found.subject, weight, embeds_scaling=scaling), cfg=4.0))


def test_style_and_composition_from_two_pictures():
    found, other = made("sdxl", "base"), made("sdxl", "base").subject
    other = replace(other, features=other.features.flip(1))
    second = Prompt(
        other.features.unflatten(1, (-1, found.family.context)), found.tokens("negative"), 0.7, "composition"
    )
    published = theirs(found, [prompt(found, weight_type="style transfer"), second], cfg=4.0)
    pair = settings(found.subject, weight_type="style transfer"), settings(other, 0.7, weight_type="composition")
    assert_equal(found, published, ours(found, *pair, cfg=4.0))


def test_windows_masks_and_batches():
    found = made("sd15", "base")
    mask = torch.zeros(40, 56)
    mask[5:33, 11:40] = torch.rand(28, 29, generator=torch.Generator().manual_seed(2))
    sampling = found.family.model.get_model_object("model_sampling")
    window = tuple(float(sampling.percent_to_sigma(p)) for p in (0.1, 0.8))
    once = {"cfg": 4.0, "size": (16, 24, 2), "steps": 3}
    published = theirs(found, [prompt(found, mask=mask[None], window=window)], **once)
    assert_equal(found, published, ours(found, settings(found.subject, 1.0, 0.1, 0.8, region=mask), **once))


@pytest.mark.parametrize("weight_type", ["linear", "style transfer precise"])
def test_a_mask_for_each_frame(weight_type: str):
    found = made("sd15", "base")
    masks = torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(2))
    once = {"cfg": 4.0, "size": (8, 8, 3)}
    published = theirs(found, [prompt(found, mask=masks, weight_type=weight_type)], **once)
    subject = settings(found.subject, region=masks, weight_type=weight_type)
    assert_equal(found, published, ours(found, subject, **once))
    with subjects.one_by_one(found.family.model):
        assert subjects.rms_difference(published, ours(found, subject, **once)) < 1e-5


def test_a_weight_and_a_picture_for_each_frame():
    found, context = made("sd15", "base"), made("sd15", "base").family.context
    features = torch.cat([found.subject.features, found.subject.features.flip(1)])
    by_frame = Prompt(features.unflatten(1, (-1, context)), found.tokens("negative"), [1.0, 0.5, 0.25], per_frame=True)
    subject = settings(replace(found.subject, features=features), weights="1, 0.5, 0.25")
    once = {"cfg": 4.0, "size": (8, 8, 4)}
    published = theirs(found, [by_frame], **once)
    assert_equal(found, published, ours(found, subject, **once))
    with subjects.one_by_one(found.family.model):
        assert subjects.rms_difference(published, ours(found, subject, **once)) < 1e-5


def test_a_strength_by_layer_of_one_subject_alone():
    found = made("sd15", "base")
    other = replace(found.subject, features=found.subject.features.flip(1))
    output = LayerStrength({"input": 0.0, "middle": 0.0, "output": 1.0}, 1.0, 1.0, {})
    whole = LayerStrength({"input": 1.0, "middle": 1.0, "output": 1.0}, 1.0, 1.0, {"input": 0.0, "middle": 0.0})
    pair = settings(found.subject, layer_strength=output), settings(other, layer_strength=whole)
    own = ours(found, *pair, cfg=4.0)
    everywhere = ours(found, found.subject, other, cfg=4.0, applied={"layer_strength": output})
    assert subjects.rms_difference(everywhere, own) < 1e-5
    assert subjects.rms_difference(everywhere, ours(found, pair[0], other, cfg=4.0)) > 1e-3


@pytest.mark.parametrize("mode", ["mean", "norm mean", "add", "subtract", "concat"])
def test_pictures_are_combined_before_the_projection(mode: str):
    found, context = made("sd15", "base"), made("sd15", "base").family.context
    vision = host.clip_vision(FEATURES, FEATURES)
    pictures = torch.rand(3, 48, 32, 3, generator=torch.Generator().manual_seed(7))
    options = {"clip_vision": vision, "fit": "crop centre", "combine": mode, "before_projection": True}
    (subject,) = SubjectEncode.execute(found.family.adapter, pictures, "man", **options).result
    read = vision.encode_image(pictures)["image_embeds"]
    together = {
        "mean": read.mean(0, keepdim=True),
        "norm mean": (read / read.norm(dim=0, keepdim=True)).mean(0, keepdim=True),
        "add": read.sum(0, keepdim=True),
        "subtract": read[:1] - read[1:].mean(0, keepdim=True),
        "concat": read,
    }[mode]
    tokens = found.family.adapter.patcher.model.projection(together)
    torch.testing.assert_close(
        subject.features.unflatten(1, (-1, context)), tokens.flatten(0, 1)[None], rtol=1e-5, atol=1e-5
    )
    assert subject.tokens == TOKENS * len(together)


def test_styles_are_refused_where_a_subject_has_no_image_tokens():
    plain = Subject("man", 1, torch.ones(1, 8), "an encoder")
    every: list[dict[str, Any]] = [{"strength": -0.5}, {"weight_type": "composition"}, {"weights": "1, 2"}]
    for options in every:
        with pytest.raises(ValueError, match="Subject 'man' has no image tokens"):
            settings(plain, **options)
    with pytest.raises(ValueError, match="must be numbers separated by commas"):
        settings(made("sd15", "base").subject, weights="1, two")
