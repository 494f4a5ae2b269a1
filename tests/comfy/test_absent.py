"""A subject without any picture: every node that takes subjects, and a whole workflow on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import host
import pytest
import skimage.data
import subjects
import torch
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.library import MoASaveSubject, MoASubjectBlend
from comfyui_moa.nodes.prompt import MoATextEncode
from comfyui_moa.nodes.settings import MoASubjectSettings
from comfyui_moa.nodes.sockets import Subject
from PIL import Image
from safetensors.torch import load_file

from devtools.server import Server

ADAPTER = "bundled/mini/adapter.safetensors"


@pytest.fixture(scope="module")
def family() -> subjects.Family:
    return subjects.make_family("sd15")


@pytest.fixture(scope="module")
def clip() -> comfy.sd.CLIP:
    return host.sd15_clip()


@pytest.fixture(scope="module")
def absent(family: subjects.Family) -> Subject:
    return SubjectEncode.execute(family.adapter, torch.zeros(0, 512, 512, 3), " man ").result[0]


def present(word: str) -> Subject:
    return Subject(word, 1, subjects.picture(1), subjects.ENCODER)


def test_without_pictures_a_subject_is_absent(absent: Subject):
    assert absent.absent and absent.word == "man" and absent.encoder == subjects.ENCODER
    assert not present("man").absent


def test_a_prompt_leaves_an_absent_subject_out(clip: comfy.sd.CLIP, absent: Subject):
    [[context, extra]] = host.encode(clip, "a man and a woman")
    [[ours, ours_extra]], report = MoATextEncode.execute(clip, "a man and a woman", {"subject_0": absent}).result
    assert torch.equal(ours, context) and ours_extra.keys() == extra.keys()
    assert report.splitlines()[1:] == ["no subjects", "left out: 'man', which has no picture"]


def test_the_others_of_a_prompt_stay(clip: comfy.sd.CLIP, absent: Subject):
    woman = present("woman")
    [[alone, _]] = MoATextEncode.execute(clip, "a man and a woman", {"subject_0": woman}).result[0]
    both, report = MoATextEncode.execute(clip, "a man and a woman", {"subject_0": absent, "subject_1": woman}).result
    [[context, _]] = both
    assert torch.equal(context, alone) and context.bindings == alone.bindings and alone.bindings[0].subject is woman
    assert "subject 1: 'woman'" in report and "left out: 'man'" in report
    MoATextEncode.execute(
        clip, "a beach", {"subject_0": absent}
    )  # the word of an absent subject may be missing from the prompt


def test_settings_pass_an_absent_subject_through(absent: Subject):
    assert MoASubjectSettings.execute(absent, 0.5, 0.0, 1.0, region=torch.zeros(1, 4, 4)).result[0] is absent


def test_a_blend_with_an_absent_subject_is_the_other(absent: Subject):
    woman = present("woman")
    assert MoASubjectBlend.execute(woman, absent, 0.7, "sphere").result[0] is woman
    second = MoASubjectBlend.execute(absent, woman, 0.3, "straight").result[0]
    assert second.word == "man" and torch.equal(second.features, woman.features)
    assert MoASubjectBlend.execute(absent, absent, 0.5, "sphere").result[0].absent


def test_an_absent_subject_is_not_saved(base: Path, absent: Subject):
    with pytest.raises(ValueError, match="Nothing to save as 'ghost'.*no picture of 'man'"):
        MoASaveSubject.execute(absent, "ghost")
    assert not list(base.rglob("ghost*"))


def workflow(photograph: str) -> dict[str, Any]:
    """A photograph, cropped to its face, in a prompt on MoA Mini; 20: latent, 21 and 22: reports of the crop and the prompt."""
    return {
        "1": {"class_type": "MoALoadMini", "inputs": {"model": "mini"}},
        "2": {"class_type": "LoadMoAAdapter", "inputs": {"adapter_file": ADAPTER}},
        "3": {"class_type": "LoadImage", "inputs": {"image": photograph}},
        "4": {
            "class_type": "MoASubjectCrop",
            "inputs": {
                "images": ["3", 0], "order": "largest first", "index": 1, "margin": 0.6, "if_none": "skip the subject"
            },
        },
        "5": {"class_type": "SubjectEncode", "inputs": {"adapter": ["2", 0], "images": ["4", 0], "word": "man", "occurrence": 1}},
        "6": {
            "class_type": "MoATextEncode",
            "inputs": {"clip": ["1", 1], "text": "a man on a beach", "subjects.subject_0": ["5", 0]},
        },
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "8": {
            "class_type": "ApplyMoA",
            "inputs": {"model": ["1", 0], "adapter": ["2", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0},
        },
        **sampled(["8", 0], ["6", 0]),
        "21": {"class_type": "PreviewAny", "inputs": {"source": ["4", 1]}},
        "22": {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}},
    }  # fmt: skip


def sampled(model: list, positive: list) -> dict[str, Any]:
    return {
        "10": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
        "11": {
            "class_type": "KSampler",
            "inputs": {
                "model": model, "positive": positive, "negative": ["7", 0], "latent_image": ["10", 0], "seed": 1,
                "steps": 3, "cfg": 2.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            },
        },
        "20": {"class_type": "SaveLatent", "inputs": {"samples": ["11", 0], "filename_prefix": "absent"}},
    }  # fmt: skip


def test_without_a_face_the_workflow_gives_the_base_models_latent(server: Server):
    for name in ("coffee", "astronaut"):
        Image.fromarray(getattr(skimage.data, name)()).save(server.base / "input" / f"{name}.png")

    def latent(prompt: dict[str, Any]) -> tuple[torch.Tensor, str]:
        outputs = server.queue(prompt)["outputs"]
        (file,) = outputs["20"]["latents"]
        reports = "\n".join(outputs[node]["text"][0] for node in ("21", "22") if node in outputs)
        return load_file(server.base / "output" / file["subfolder"] / file["filename"])["latent_tensor"], reports

    absent = workflow("coffee.png")
    plain = {key: absent[key] for key in ("1", "7")} | sampled(["1", 0], ["9", 0])
    plain["9"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a man on a beach"}}
    base, _ = latent(plain)
    without, report = latent(absent)
    assert torch.equal(without, base)
    assert "no picture is left" in report and "left out: 'man'" in report
    with_her, report = latent(workflow("astronaut.png"))
    assert not torch.equal(with_her, base) and "subject 1: 'man'" in report
