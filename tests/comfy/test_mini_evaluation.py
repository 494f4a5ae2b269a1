"""Measuring MoA Mini: `dev.py eval` resumes where it was stopped, and writes all of its figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from comfyui_moa.moa_attention.formats.adapter import load_adapter, read_header
from comfyui_moa.moa_attention.training.base import Batch

from devtools.templates.families import FAMILIES

KEYS = {
    "cases", "identity_rank1_of_20", "identity_rank1_prior", "identity_rank1_pinned", "identity_kept", "judge_ceiling",
    "scene_accuracy", "scene_accuracy_prior", "background_change", "background_change_pinned", "background_change_kept",
    "router_inside", "router_outside", "two_people_cases", "two_people_correct", "two_people_prior", "two_people_kept",
    "two_people_chance",
}  # fmt: skip


@pytest.mark.slow
def test_a_stopped_evaluation_resumes(
    pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    del pack
    recipe = importlib.import_module("comfyui_moa.recipes.mini.judging.evaluate")
    generate, sizes = recipe.MiniPipeline.generate, []

    def stopped_at_the_third(self, requests, *settings, **options):
        sizes.append(len(requests))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return generate(self, requests, *settings, **options)

    monkeypatch.setattr(importlib.import_module("comfyui_moa.recipes.mini.judging.pipeline"), "STEPS", 6)
    monkeypatch.setattr(recipe, "WORK", tmp_path)
    monkeypatch.setattr(recipe.MiniPipeline, "generate", stopped_at_the_third)
    arguments = ["--cases", "2", "--json", str(tmp_path / "figures.json")]
    with pytest.raises(SystemExit, match="eval: stopped. The same command resumes."):
        recipe.main(arguments)
    assert len([*(tmp_path / "eval").glob("*/*.safetensors")]) == 2

    recipe.main(arguments)
    assert sizes == [2, 2, 2, 2, 2, 1, 1, 1], "what was generated before is not generated again"
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert set(figures) == KEYS
    assert 0 < figures["background_change_kept"] < figures["background_change"] < figures["background_change_pinned"]
    assert "| keep background " in capsys.readouterr().out
    assert (tmp_path / "eval_sheet.png").is_file() and not (tmp_path / "eval").exists()


def test_errors_of_denoising_are_the_priors_where_it_has_nearly_all_of_the_share(pack, monkeypatch) -> None:
    del pack
    denoising = importlib.import_module("comfyui_moa.recipes.mini.judging.denoising")
    torch.manual_seed(0)
    adapter = load_adapter(denoising.WEIGHTS / "adapter.safetensors").float()
    slots, masks = torch.zeros(2, 77, dtype=torch.long), torch.zeros(2, 1, 16, 16)
    slots[:, 2], masks[:, :, 4:, 4:12] = 1, 1
    side = adapter.encoder.picture
    batch = Batch(torch.randn(2, 32, 16, 16), torch.randn(2, 77, 128), slots, torch.rand(2, 1, 3, side, side), masks)
    monkeypatch.setattr(denoising, "Examples", lambda clip, side, split: lambda lot: batch)
    monkeypatch.setattr(denoising, "LEVELS", 2)
    monkeypatch.setattr(denoising, "BATCH", 2)
    with torch.no_grad():
        alone, mixed = (denoising.denoising_errors(adapter, bias) for bias in (1000.0, 0.0))
    assert alone == pytest.approx(dict.fromkeys(alone, 1.0), abs=1e-4)
    assert abs(mixed["denoise_outside"] - 1) > 1e-2 and abs(mixed["denoise_wrong"] - mixed["denoise_right"]) > 1e-3


def test_the_settings_in_use_are_the_same_wherever_they_are_written(pack):
    del pack
    pipeline = importlib.import_module("comfyui_moa.recipes.mini.judging.pipeline")
    weights = importlib.import_module("comfyui_moa.recipes.mini.data.faces").WEIGHTS
    recorded = read_header(weights / "adapter.safetensors").provenance["recommended"]
    family = FAMILIES["mini"]
    assert family.apply == {"strength": pipeline.STRENGTH, "start_percent": pipeline.START}
    assert family.sampling == {
        "steps": pipeline.STEPS,
        "cfg": pipeline.GUIDANCE,
        "sampler_name": pipeline.SAMPLER,
        "scheduler": pipeline.SCHEDULE,
    }
    assert recorded == {**family.apply, "guidance": pipeline.GUIDANCE}
