"""A subject fits every adapter file with the encoder and fusion that it was encoded with, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.adapters.moa import MoAAdapter
from comfyui_moa.moa_attention.formats.adapter import save_adapter
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.load import LoadMoAAdapter
from comfyui_moa.nodes.save import MoASaveAdapter
from comfyui_moa.nodes.sockets import LoadedAdapter, Subject

VISION = "clip-vit-large-patch14"


@pytest.fixture(scope="module")
def family() -> subjects.Family:
    return subjects.make_family("sd15")


@pytest.fixture
def folder() -> Iterator[Path]:
    """models/moa; new files in it are gone afterwards."""
    register_adapter_folders()
    place = Path(folder_paths.get_folder_paths("moa")[0])
    place.mkdir(parents=True, exist_ok=True)
    before = set(place.iterdir())
    yield place
    for path in set(place.iterdir()) - before:
        path.unlink()


def write(family: subjects.Family, path: Path, fusion: int, experts: int) -> str:
    """An adapter of random weights for the features of a CLIP vision model, by its name in the drop-down."""
    made: Any = subjects.make_adapter(family.model, family.context, image_encoder=VISION, seed=experts).patcher.model
    assert isinstance(made, MoAAdapter)
    host.randomise(made.fusion, fusion)
    save_adapter(made, path, licence="test", provenance={})
    return path.name


def load(name: str) -> LoadedAdapter:
    return LoadMoAAdapter.execute(name).result[0]


def encode(adapter: LoadedAdapter) -> Subject:
    picture = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    vision = host.clip_vision(subjects.FEATURE, subjects.FEATURE)
    return SubjectEncode.execute(adapter, picture, "man", clip_vision=vision).result[0]


def sample(family: subjects.Family, adapter: LoadedAdapter, subject: Subject) -> torch.Tensor:
    [[context, extra]] = family.prompt()
    prompt = [with_subjects(context, extra, [Binding(subject, 4)])]
    return family.sample(family.attach(adapter=adapter), prompt, steps=1)


def test_another_fusion_is_refused_although_the_encoder_is_the_same(family: subjects.Family, folder: Path):
    one, other = (load(write(family, folder / f"{n}.safetensors", fusion=n, experts=5)) for n in (1, 2))
    subject = encode(one)
    assert sample(family, one, subject).isfinite().all()
    with pytest.raises(ValueError, match=r"encoder and fusion are 'clip-vit-large-patch14:.*same 'Load MoA Adapter'"):
        sample(family, other, subject)


def test_files_with_the_same_encoder_and_fusion_share_subjects(family: subjects.Family, folder: Path):
    one, other = (load(write(family, folder / f"{n}.safetensors", fusion=1, experts=n)) for n in (1, 2))
    subject = encode(one)
    assert subjects.difference(sample(family, one, subject), sample(family, other, subject)) > 0.01


def test_a_copy_in_another_precision_shares_subjects(family: subjects.Family, folder: Path):
    one = load(write(family, folder / "full.safetensors", fusion=1, experts=5))
    saved = Path(MoASaveAdapter.execute(one, "half", "bf16").result[0])
    assert saved.parent == folder
    half = load(saved.name)
    assert half.encoder == one.encoder != half.patcher.model.identity
    assert sample(family, half, encode(one)).isfinite().all()
