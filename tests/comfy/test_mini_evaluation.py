"""Measuring MoA Mini: `dev.py eval` resumes where it was stopped, and writes all of its figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

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
