"""Load IP-Adapter (MoA): files are found by their contents, loaded once, and what is missing is named."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import folder_paths
import host
import pytest
import torch
from comfyui_moa.moa_attention.formats.ip_adapter.presets import PRESETS
from comfyui_moa.nodes.host.files import shared_files
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.files.preset_files import PresetFiles, find_files
from comfyui_moa.nodes.load import LoadMoAAdapter, MoALoadIPAdapter
from safetensors.torch import save_file
from test_image_prompts import file_order, ip_files, random

HUGE, BIG_G = 1024, 1280
"""Widths of the embeddings of CLIP-ViT-H-14 and CLIP-ViT-bigG-14."""
STANDARD, LIGHT, VIT_G, PLUS, PLUS_FACE = (
    "STANDARD (medium strength)", "LIGHT - SD1.5 only (low strength)", "VIT-G (medium strength)", "PLUS (high strength)",
    "PLUS FACE (portraits)",
)  # fmt: skip


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty folders of IP-Adapters and CLIP vision models; the second is in another place, as by extra_model_paths."""
    register_adapter_folders()
    for folder, place, types in (
        ("ipadapter", tmp_path / "ipadapter", {".safetensors", ".bin"}),
        ("clip_vision", tmp_path / "elsewhere", {".safetensors"}),
    ):
        place.mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(place)], types))
        monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture(scope="module")
def sd15() -> Any:
    return host.sd15()


def write(folder: Path, name: str, kind: Any, features: int, model: Any) -> None:
    """An IP-Adapter for a tiny model, under the folder of IP-Adapters."""
    layers = file_order(model)
    file = ip_files.nested(
        kind, [layer.spec.hidden for layer in layers], features, layers[0].spec.context, rank=2, make=random(1)
    )
    if name.endswith(".bin"):
        torch.save(file, folder / "ipadapter" / name)
    else:
        save_file(
            {f"{part}.{key}": t for part, tensors in file.items() for key, t in tensors.items()},
            folder / "ipadapter" / name,
        )


def write_vision(folder: Path, name: str, hidden: int, projected: int) -> None:
    """The tensors of a CLIP vision model by which its widths are known."""
    tensors = {
        "vision_model.post_layernorm.weight": torch.zeros(hidden),
        "visual_projection.weight": torch.zeros(projected, hidden),
    }
    save_file(tensors, folder / "elsewhere" / name)


def found(model: Any, preset: str) -> tuple[str, str | None]:
    files: PresetFiles = find_files(model, preset)
    assert files.adapter in files.about and (files.vision or "not needed") in files.about
    return files.adapter, files.vision


def test_contents_decide_and_names_only_between_equal_tensors(models: Path, sd15: Any):
    write(models, "sdxl_vit-g.safetensors", "base", HUGE, sd15)
    write(models, "light.bin", "base", HUGE, sd15)
    write(models, "plus.safetensors", "base", BIG_G, sd15)
    write(models, "mine.bin", "plus", 1280, sd15)
    write(models, "a_face.safetensors", "plus", 1280, sd15)
    write(models, "plus_faceid.bin", "faceid", 0, sd15)
    write(models, "plusv2.bin", "faceid plus", 1280, sd15)
    write(models, "one.bin", "faceid plus", 1280, sd15)
    write(models, "ip-adapter.bin", "instantid", 0, sd15)
    write(models, "portrait_unnorm.bin", "instantid", 0, sd15)
    write_vision(models, "h.safetensors", 1280, HUGE)
    write_vision(models, "g.safetensors", 1664, BIG_G)
    assert found(sd15, STANDARD) == ("sdxl_vit-g.safetensors", "h.safetensors")
    assert found(sd15, LIGHT) == ("light.bin", "h.safetensors")
    assert found(sd15, VIT_G) == ("plus.safetensors", "g.safetensors")
    assert found(sd15, PLUS) == ("mine.bin", "h.safetensors")
    assert found(sd15, PLUS_FACE) == ("a_face.safetensors", "h.safetensors")
    assert found(sd15, "FACEID") == ("plus_faceid.bin", None)
    assert found(sd15, "INSTANTID - SDXL only (attention part)") == ("ip-adapter.bin", None)
    assert found(sd15, "FACEID PORTRAIT UNNORM - SDXL only (strong)") == ("portrait_unnorm.bin", None)
    assert found(sd15, "FACEID PLUS V2") == ("plusv2.bin", "h.safetensors")
    assert found(sd15, "FACEID PLUS - SD1.5 only") == ("one.bin", "h.safetensors")


def test_the_model_decides_between_families(models: Path, sd15: Any):
    sdxl = host.sdxl()
    write(models, "one.safetensors", "plus", 1280, sdxl)
    write(models, "other.safetensors", "plus", 1280, sd15)
    write_vision(models, "h.safetensors", 1280, HUGE)
    assert found(sdxl, PLUS)[0] == "one.safetensors"
    assert found(sd15, PLUS)[0] == "other.safetensors"
    with pytest.raises(
        FileNotFoundError, match=r"for sd15 with text width 96.*one.safetensors \(plus, sdxl, text width 160\)"
    ):
        find_files(host.sd15(context=96), PLUS)


def test_of_several_files_the_newer_and_the_safer_is_taken(models: Path, sd15: Any):
    for name in ("light_v11.bin", "light.bin", "light.safetensors"):
        write(models, name, "base", HUGE, sd15)
    write_vision(models, "h.safetensors", 1280, HUGE)
    files = find_files(sd15, LIGHT)
    assert files.adapter == "light.safetensors"
    assert "(light.bin, light_v11.bin also fits)" in files.about
    (models / "ipadapter" / "light.safetensors").unlink()
    folder_paths.filename_list_cache.clear()
    assert found(sd15, LIGHT)[0] == "light_v11.bin"


def test_faceid_presets_say_what_they_need(models: Path, sd15: Any):
    write(models, "v2_plusv2.bin", "faceid plus", 1280, sd15)
    write_vision(models, "h.safetensors", 1280, HUGE)
    about = find_files(sd15, "FACEID PLUS V2").about
    assert (
        "connect 'Face Embedding (MoA)' to 'face'" in about
        and "set 'faceid_plus' of 'Encode Subject (MoA)' to 2" in about
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_missing_file_is_named_with_what_was_looked_for_and_where(preset: str, models: Path, sd15: Any):
    (models / "ipadapter" / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(FileNotFoundError) as caught:
        find_files(sd15, preset)
    message = str(caught.value)
    assert f"found no file for '{preset}'" in message and str(models / "ipadapter") in message
    assert (
        f"kind '{PRESETS[preset].kind}'" in message and "Files there: torn.safetensors (not an IP-Adapter)." in message
    )


def test_a_missing_clip_vision_model_is_named(models: Path, sd15: Any):
    write(models, "plus.safetensors", "plus", 1280, sd15)
    write_vision(models, "large.safetensors", 1024, 768)
    with pytest.raises(FileNotFoundError) as caught:
        find_files(sd15, PLUS)
    message = str(caught.value)
    assert (
        "found 'plus.safetensors', but not its CLIP vision model. Looked for: CLIP-ViT-H-14 (patches 1280 wide)"
        in message
    )
    assert str(models / "elsewhere") in message and "do not fit: large.safetensors." in message


def test_a_model_without_such_layers_is_refused(models: Path):
    flat = host.patcher(
        host.comfy.supported_models.SD15,
        {**host.sd15_layout(32, 64), "transformer_depth": [0] * 8, "transformer_depth_output": [0] * 12},
    )
    with pytest.raises(ValueError, match="needs an SD1.5 or SDXL model"):
        find_files(flat, PLUS)


def test_a_file_is_loaded_once_and_again_when_it_changes(models: Path, sd15: Any):
    write(models, "mine.bin", "faceid", 0, sd15)
    first, vision, about = MoALoadIPAdapter.execute(sd15, "FACEID").result
    second = MoALoadIPAdapter.execute(sd15, "FACEID").result[0]
    by_name = LoadMoAAdapter.execute("ipadapter/mine.bin").result[0]
    assert vision is None and first is second is by_name
    assert "IP-Adapter, kind faceid" in about
    before = MoALoadIPAdapter.fingerprint_inputs(None, "FACEID")
    write(models, "mine.bin", "faceid", 0, sd15)
    assert MoALoadIPAdapter.fingerprint_inputs(None, "FACEID") != before
    assert MoALoadIPAdapter.execute(sd15, "FACEID").result[0] is not first
    held = weakref.ref(first)
    del first, second, by_name
    gc.collect()
    assert held() is None
    assert all(value is not None for value in shared_files.HELD.values())
