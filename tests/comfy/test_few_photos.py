"""The recipe for a few photos of one person, as it is in the repository, on MoA Mini."""

from __future__ import annotations

import importlib
from pathlib import Path

import pictures
from comfyui_moa.moa_attention.formats.adapter import load_adapter

ROOT = Path(__file__).resolve().parents[2]


def test_the_recipe_continues_an_adapter_gently(tmp_path: Path):
    start = ROOT / "weights" / "mini" / "adapter.safetensors"
    mini = ["--checkpoint", "moa-mini", "--clip_vision", "", "--adapter.rank", "0", "--data.side", "128"]
    run = ["--folder", str(pictures.kohya(tmp_path / "photos")), "--adapter.start", str(start)]
    small = ["--train.steps", "2", "--warmup", "1", "--precision", "float32", "--validation.steps", "1"]
    config = ROOT / "recipes" / "adapter" / "few_photos.toml"
    output = tmp_path / "my_person"
    importlib.import_module("comfyui_moa.recipes.adapter.train").main(
        [str(config), "--output", str(output), *mini, *run, *small]
    )
    before, after = (load_adapter(path).state_dict() for path in (start, output / "adapter.safetensors"))
    moved = {name: float((after[name] - tensor).norm() / tensor.norm()) for name, tensor in before.items()}
    assert any(change > 1e-6 for change in moved.values())
    assert all(change < 0.05 for name, change in moved.items() if before[name].norm() > 1), "close to the adapter"
    assert (output / "sheets" / "0000002.png").is_file()
