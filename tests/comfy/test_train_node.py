"""Train MoA Adapter: it runs again when its pictures change, keeps its previews, and fits routers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pictures
import pytest
import subjects  # noqa: F401  (imports the pack)
import torch
from comfyui_moa.moa_attention.formats.routers import routers_of
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.files.input_folders import input_folders
from comfyui_moa.nodes.host.files.mini_files import load_mini
from comfyui_moa.nodes.load import LoadMoAAdapter
from comfyui_moa.nodes.save import MoASaveAdapter
from comfyui_moa.nodes.train import MoATrain
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = "bundled/mini/adapter.safetensors"
Run = Callable[..., Any]


@pytest.fixture
def folder(base: Path, request: pytest.FixtureRequest) -> Path:
    """Six pictures in the host's input folder, under the name of the test."""
    return pictures.kohya(base / "input" / request.node.name)


@pytest.fixture
def train(folder: Path) -> Run:
    """The node on that folder, in a run of its name: two steps without previews, unless other values are given."""
    settings: dict[str, Any] = {
        "folder": folder.name, "name": folder.name, "steps": 2, "batch_size": 2, "micro_batch": 0, "learning_rate": 1e-2,
        "rank": 4, "side": 128, "checkpointing": False, "seed": 0, "licence": "CC0-1.0", "preview_every": 0,
        "preview_prompts": "a man",
    }  # fmt: skip

    def run(**options: Any) -> Any:
        with torch.inference_mode():
            model, clip, vae = load_mini(ROOT / "weights" / "mini")
            return MoATrain.execute(model, clip, vae, **settings | options).result

    return run


def test_its_fingerprint_is_the_folders(folder: Path):
    before = MoATrain.fingerprint_inputs(folder=folder.name, name="any", steps=3)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.txt").write_text("a man")
    (folder / "notes.md").write_text("about the pictures")
    assert MoATrain.fingerprint_inputs(folder=folder.name) == before
    (folder / "00000001.txt").write_text("a woman and a man")
    changed = MoATrain.fingerprint_inputs(folder=folder.name)
    (folder / "00000000.mask1.png").unlink()
    assert len({before, changed, MoATrain.fingerprint_inputs(folder=folder.name)}) == 3


def test_a_finished_run_with_changed_captions_is_refused_and_continues_with_more_steps(folder: Path, train: Run):
    train()
    train()
    (folder / "00000000.txt").write_text("a man in the sun and the wind")
    with pytest.raises(ValueError, match="done its 2 steps, and the pictures have changed since. Raise 'steps'"):
        train()
    adapter, losses, report = train(steps=4)
    assert len(losses["loss"]) == 4
    assert re.search("(?m)^fingerprint of the folder was .* from step 3 on.$", report)
    assert "fingerprint of the folder" in adapter.provenance["changes"][0]


def test_previews_are_kept(base: Path, folder: Path, train: Run):
    train(steps=3, preview_every=2)
    sheets = base / "output" / "moa_training" / folder.name / "sheets"
    assert sorted(p.name for p in sheets.iterdir()) == ["0000002.png", "0000003.png"]
    assert Image.open(sheets / "0000002.png").width == 5 * 192


def test_hidden_and_linked_folders_are_not_offered_and_links_are_refused(base: Path, tmp_path: Path, folder: Path):
    for name in (".hidden/inner", "shown/inner"):
        (folder / name).mkdir(parents=True)
    (folder / "linked").symlink_to(tmp_path)
    ours = {name.removeprefix(folder.name) for name in input_folders() if name.startswith(folder.name)}
    assert ours == {"", "/shown", "/shown/inner"}
    with pytest.raises(ValueError, match=f"'{folder.name}/linked' is a link that leads out of .*, to {tmp_path}"):
        MoATrain.fingerprint_inputs(folder=f"{folder.name}/linked")
    with pytest.raises(ValueError, match="begins with a dot"):
        MoATrain.fingerprint_inputs(folder="../output")


def test_routers_are_trained_saved_and_loaded_for_a_frozen_adapter(base: Path, train: Run):
    register_adapter_folders()
    with pytest.raises(ValueError, match="none is connected to 'start' of 'Train MoA Adapter'"):
        train(only_routers=True)
    with torch.inference_mode():
        start, _ = LoadMoAAdapter.execute(ADAPTER).result
    made, losses, _ = train(only_routers=True, router_foreground=0.3, start=start)
    assert len(losses["loss"]) == 2
    before, after = (dict(a.patcher.model.named_parameters()) for a in (start, made))
    moved = {name for name in before if not torch.equal(before[name], after[name].to(before[name]))}
    assert moved and all(".router." in name for name in moved)
    (path,) = MoASaveAdapter.execute(made, "fitted", "fp16").result
    assert Path(path).parent == base / "models" / "moa" / "routers"
    loaded, about = LoadMoAAdapter.execute(ADAPTER, Path(path).name).result
    assert "routers, data: " in about
    for one, other in zip(routers_of(made.patcher.model), routers_of(loaded.patcher.model), strict=True):
        assert all(torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())
