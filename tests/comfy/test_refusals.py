"""What cannot work is refused before sampling, with a message that names what was sought, what was found and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import folder_paths
import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.adapters.moa import MoAAdapter
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.folders import adapter_names, adapter_path, register_adapter_folders
from comfyui_moa.nodes.host.model import patch
from comfyui_moa.nodes.sockets import LoadedAdapter
from subjects import Family
from torch import nn


@pytest.fixture(scope="module")
def family() -> Family:
    return subjects.make_family("sd15")


def clip_adapter(family: Family, name: str = "clip-vit-large-patch14") -> LoadedAdapter:
    return subjects.make_adapter(family.model, family.context, image_encoder=name)


def flux() -> Any:
    """The host's Flux, as narrow as it gets."""
    layout = {"image_model": "flux", "guidance_embed": False, "in_channels": 16, "out_channels": 16, "patch_size": 2}
    layout |= {"hidden_size": 32, "mlp_ratio": 1.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "theta": 100}
    layout |= {"vec_in_dim": 8, "context_in_dim": 8, "axes_dim": [4, 6, 6], "qkv_bias": True, "txt_ids_dims": []}
    config = comfy.supported_models.Flux(layout)
    config.set_inference_dtype(torch.float32, None)
    return comfy.model_patcher.ModelPatcher(config.get_model({}, ""), torch.device("cpu"), torch.device("cpu"))


def test_a_transformer_is_refused(family: Family):
    with pytest.raises(ValueError, match=r"needs a Stable Diffusion U-Net.*but this model is a Flux \(Flux\)"):
        family.attach(flux())


def test_any_other_module_is_refused(family: Family):
    other = comfy.model_patcher.ModelPatcher(nn.Linear(1, 1), torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match="needs a Stable Diffusion U-Net"):
        family.attach(other)


def test_a_refiner_is_refused():
    """Its U-Net has the same shape; only the text is of another width."""
    base = subjects.make_family("sdxl")
    refiner = host.sdxl(context=1280)
    with pytest.raises(ValueError, match=r"trained for 'test': 140 attention layers, text width 160.*text width 1280"):
        base.attach(refiner)


def test_an_adapter_of_another_base_is_refused(family: Family):
    with pytest.raises(ValueError, match=r"32 attention layers.*has 140 attention layers, text width 160.*family"):
        family.attach(host.sdxl())
    with pytest.raises(ValueError, match="first that differs is input_1_0_attn1"):
        family.attach(host.sd15(channels=64))


def test_the_model_is_untouched_by_a_refusal(family: Family):
    other = host.sdxl()
    with pytest.raises(ValueError, match="attention layers"):
        family.attach(other)
    assert other.model_options["transformer_options"] == {}
    assert not other.get_additional_models_with_key(patch.KEY)


def test_subjects_of_another_encoder_are_refused_before_any_call(family: Family):
    model = patch.apply_adapter(family.model, family.adapter.patcher, encoder="another encoder")
    with (
        subjects.counted_calls(family.model) as rows,
        pytest.raises(
            ValueError, match=f"'{subjects.ENCODER}'.*applied adapter are 'another encoder'.*same 'Load MoA Adapter'"
        ),
    ):
        family.sample(model, family.prompt(subjects={4: 1}))
    assert rows == []


@pytest.mark.parametrize("word", ["", "   "])
def test_an_empty_word_is_refused(family: Family, word: str):
    with pytest.raises(ValueError, match="'word' is empty"):
        SubjectEncode.execute(family.adapter, torch.rand(1, 16, 16, 3), word)


def test_an_empty_mask_is_refused(family: Family):
    with pytest.raises(ValueError, match="mask is empty"):
        SubjectEncode.execute(family.adapter, torch.rand(1, 16, 16, 3), "man", torch.zeros(1, 16, 16))


def test_missing_clip_vision_is_refused(family: Family):
    with pytest.raises(
        ValueError, match="with the CLIP vision model 'clip-vit-large-patch14', and none is connected.*Load CLIP Vision"
    ):
        SubjectEncode.execute(clip_adapter(family), torch.rand(1, 16, 16, 3), "man")


def test_a_clip_vision_model_of_another_width_is_refused(family: Family):
    with pytest.raises(ValueError, match="24 wide, but the connected input gives 40. Use 'clip-vit-large-patch14'"):
        SubjectEncode.execute(
            clip_adapter(family), torch.rand(1, 16, 16, 3), "man", clip_vision=host.clip_vision(32, 40)
        )


def test_pictures_of_one_subject_are_averaged(family: Family):
    images, vision = torch.rand(2, 20, 30, 3), host.clip_vision(32, subjects.FEATURE)
    for adapter in (family.adapter, clip_adapter(family)):

        def encode(pictures: torch.Tensor, adapter: LoadedAdapter = adapter) -> torch.Tensor:
            subject = subjects.first(
                SubjectEncode.execute(adapter, pictures, " man ", clip_vision=vision, occurrence=2)
            )
            assert (subject.word, subject.occurrence, subject.encoder) == ("man", 2, adapter.encoder)
            assert subject.features.shape == (1, subjects.FEATURE)
            return subject.features

        together = encode(images)
        torch.testing.assert_close(together, (encode(images[:1]) + encode(images[1:])) / 2, atol=1e-4, rtol=1e-4)
        assert (encode(images[:1]) - encode(images[1:])).abs().max() > 1e-4


def test_an_unknown_adapter_file_names_the_folders():
    register_adapter_folders()
    with pytest.raises(FileNotFoundError, match=r"No adapter 'missing.safetensors' in .*moa.*refresh"):
        adapter_path("missing.safetensors")
    folder = Path(folder_paths.get_folder_paths("moa")[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("mine.safetensors", "theirs.ckpt"):
        (folder / name).write_bytes(b"")
    assert "mine.safetensors" in adapter_names()
    assert "theirs.ckpt" not in adapter_names()
    assert adapter_path("mine.safetensors") == folder / "mine.safetensors"


def test_applying_returns_a_model_and_a_trace_of_its_layers(family: Family):
    model, trace = ApplyMoA.execute(family.model, replace(family.adapter), 1.0).result
    assert model is not family.model
    assert isinstance(family.adapter.patcher.model, MoAAdapter)
    assert trace.layers == family.adapter.patcher.model.config.layers
