"""A library of subjects: saved, listed, loaded, blended, on a real server and as nodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import subjects
import torch
from app.model_manager import ModelFileManager
from comfyui_moa.moa_attention.formats.subject import load_subject
from comfyui_moa.nodes.host.files.folders import adapter_names, register_adapter_folders, subject_path
from comfyui_moa.nodes.library import MoALoadSubject, MoASaveSubject, MoASubjectBlend
from comfyui_moa.nodes.sockets import Subject
from PIL import Image

from devtools.server import Server, ServerError

ADAPTER = "bundled/mini/adapter.safetensors"


def test_a_saved_subject_is_loaded_and_is_not_listed_as_an_adapter(base: Path):
    register_adapter_folders()
    subject = Subject("woman", 2, subjects.picture(1), subjects.ENCODER)
    picture = torch.rand(1, 40, 60, 3)
    paths = [Path(MoASaveSubject.execute(subject, "friends/anna", picture).result[0]) for _ in range(2)]
    assert paths[0] != paths[1] and paths[0].parent == base / "models" / "moa" / "subjects" / "friends"
    name = f"friends/{paths[0].name}"
    again, thumbnail = MoALoadSubject.execute(name, "", 0).result
    assert (again.word, again.occurrence, again.encoder) == ("woman", 2, subjects.ENCODER)
    assert torch.equal(again.features, subject.features) and thumbnail.shape == (1, 256, 256, 3)
    assert thumbnail.std() > 0.1
    other = MoALoadSubject.execute(name, " girl ", 1).result[0]
    assert (other.word, other.occurrence) == ("girl", 1)
    assert not [found for found in adapter_names() if "anna" in found]


def test_the_licence_and_a_picture_for_the_host_are_saved(base: Path):
    register_adapter_folders()
    picture = torch.rand(1, 8, 8, 3).repeat_interleave(32, 1).repeat_interleave(32, 2)
    saved = [Subject("man", 1, subjects.picture(1), subjects.ENCODER), "licensed", picture]
    path = Path(MoASaveSubject.execute(*saved, "Anna, \n for  private use").result[0])
    stored = load_subject(path)
    assert stored.licence == "Anna, for private use"
    [cover] = ModelFileManager().get_model_previews(str(path))
    shown = torch.from_numpy(np.array(Image.open(cover).convert("RGB"))).float()
    assert (shown - stored.thumbnail.float()).abs().mean() < 8
    with pytest.raises(ValueError, match="'licence' in 'Save Subject .MoA.' has 501 characters, allowed are 500"):
        MoASaveSubject.execute(*saved, 501 * "x")


@pytest.mark.parametrize("name", ["missing.safetensors", "../../../secret.safetensors"])
def test_a_missing_file_is_named(base: Path, name: str):
    register_adapter_folders()
    (base / "secret.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"No subject .* in .*subjects\. Files there: "):
        subject_path(name)


def test_subjects_of_different_adapters_are_not_blended():
    one, other = (Subject("man", 1, subjects.picture(seed), f"features {seed}") for seed in (1, 2))
    with pytest.raises(ValueError, match="'features 1' and 'features 2'"):
        MoASubjectBlend.execute(one, other, 0.5, "sphere")


def test_a_saved_blend_gives_the_same_picture_when_it_is_loaded(server: Server):
    load = {
        "1": {"class_type": "MoALoadMini", "inputs": {"model": "mini"}},
        "2": {"class_type": "LoadMoAAdapter", "inputs": {"adapter_file": ADAPTER}},
        "3": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0xC08060}},
        "4": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0x204080}},
        "5": {"class_type": "SubjectEncode", "inputs": {"adapter": ["2", 0], "images": ["3", 0], "word": "man", "occurrence": 1}},
        "6": {"class_type": "SubjectEncode", "inputs": {"adapter": ["2", 0], "images": ["4", 0], "word": "man", "occurrence": 1}},
        "7": {
            "class_type": "MoASubjectBlend",
            "inputs": {"first": ["5", 0], "second": ["6", 0], "amount": 0.5, "along": "sphere"},
        },
    }  # fmt: skip
    save = {
        "class_type": "MoASaveSubject",
        "inputs": {"subject": ["7", 0], "filename_prefix": "morph", "thumbnail": ["3", 0]},
    }
    server.queue({**load, "8": save})
    saved = sorted((server.base / "models" / "moa" / "subjects").glob("morph_*.safetensors"))
    assert len(saved) == 1

    def workflow(subject: list) -> dict:
        return {
            **load,
            "9": {"class_type": "MoALoadSubject", "inputs": {"subject_file": saved[0].name, "word": "", "occurrence": 0}},
            "10": {
                "class_type": "MoATextEncode",
                "inputs": {"clip": ["1", 1], "text": "a man on a beach", "subjects.subject_0": subject},
            },
            "11": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
            "12": {
                "class_type": "ApplyMoA",
                "inputs": {
                    "model": ["1", 0], "adapter": ["2", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0
                },
            },
            "13": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
            "14": {
                "class_type": "KSampler",
                "inputs": {
                    "model": ["12", 0], "positive": ["10", 0], "negative": ["11", 0], "latent_image": ["13", 0], "seed": 1,
                    "steps": 3, "cfg": 2.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
                },
            },
            "15": {"class_type": "VAEDecode", "inputs": {"samples": ["14", 0], "vae": ["1", 2]}},
            "16": {"class_type": "SaveImage", "inputs": {"images": ["15", 0], "filename_prefix": "morph"}},
        }  # fmt: skip

    def pixels(subject: list) -> bytes:
        from PIL import Image

        (image,) = server.queue(workflow(subject))["outputs"]["16"]["images"]
        return Image.open(server.base / "output" / image["filename"]).tobytes()

    assert pixels(["9", 0]) == pixels(["7", 0]) != pixels(["5", 0])
    assert saved[0].name in json.dumps(server.object_info()["MoALoadSubject"])
    broken = workflow(["9", 0])
    broken["9"]["inputs"]["subject_file"] = "missing.safetensors"
    with pytest.raises(ServerError, match="missing.safetensors"):
        server.queue(broken)
