"""Files that are overwritten in place, or cut, while what was loaded from them is in use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import comfy.utils
import host
import numpy as np
import pytest
import torch
from comfyui_moa.nodes.host.files.adapters import open_adapter
from comfyui_moa.nodes.host.files.folders import WEIGHTS
from comfyui_moa.nodes.host.files.mini_files import load_unet
from comfyui_moa.nodes.host.pictures.face_embeddings import read_embeddings
from safetensors.torch import save_file
from test_image_prompts import write_file
from torch import Tensor


def adapter(path: Path) -> list[Tensor]:
    write_file(host.sd15(), host.SD15_CONTEXT, path)
    return list(open_adapter(path)[0].model.state_dict().values())


def face(path: Path) -> list[Tensor]:
    rows = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    np.save(path, rows) if path.suffix == ".npy" else save_file({"face": torch.from_numpy(rows)}, path)
    return [read_embeddings(path)]


def mini(path: Path) -> list[Tensor]:
    shutil.copy(WEIGHTS / "mini" / "unet.safetensors", path)
    return list(load_unet(path).model.diffusion_model.state_dict().values())


@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mapped"])
@pytest.mark.parametrize(
    ("name", "load"),
    [("a.safetensors", adapter), ("a.bin", adapter), ("f.npy", face), ("f.safetensors", face), ("u.safetensors", mini)],
)
def test_what_is_loaded_does_not_follow_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[Path], list[Tensor]], mapped: bool
):
    """Also where the host maps pickled files (`--mmap-torch-files`)."""
    monkeypatch.setattr(comfy.utils, "MMAP_TORCH_FILES", mapped)
    path = tmp_path / name
    tensors = load(path)
    before = [t.clone() for t in tensors]
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
        file.flush()
        assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))
        file.truncate(10)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))
