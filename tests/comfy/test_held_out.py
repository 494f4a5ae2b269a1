"""Held-out pictures: they are not trained on; their errors are logged and plotted and decide which adapter is kept."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pictures
import pytest
import torch
from comfyui_moa.moa_attention.formats.adapter import load_adapter, read_header
from comfyui_moa.moa_attention.formats.tensors import write_tensors
from comfyui_moa.moa_attention.training.cache.entries import CacheEntry
from comfyui_moa.moa_attention.training.config import SheetConfig
from comfyui_moa.moa_attention.training.data.folder import read_pictures
from comfyui_moa.moa_attention.training.held_out import NUMBERS, TIMESTEPS, hold_out
from comfyui_moa.moa_attention.training.saved.files import at_step, go_back, keep
from PIL import Image
from safetensors.torch import load_file

STEPS = 40


def recipe(name: str) -> Any:
    return importlib.import_module(f"comfyui_moa.recipes.adapter.{name}")


def train(folder: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    """Run the command: -> the rows of its log with measurements."""
    config = output.with_suffix(".toml")
    config.write_text(
        f"""
        output = "{output.as_posix()}"
        models.checkpoint = "moa-mini"
        data = {{ folder = "{folder.as_posix()}", licence = "CC0-1.0", side = 128, held_out = 4 }}
        adapter.rank = 4
        train = {{ steps = {STEPS}, batch_size = 4, precision = "float32", learning_rate = 1e-3, save_every = 10 }}
        validation = {{ every = {STEPS}, at = [1], prompts = [] }}
        """
    )
    recipe("train").main([str(config), *options])
    return recipe("held_out").measurements(output / "log.jsonl")


def test_the_errors_fall_and_the_right_reference_becomes_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, output = pictures.kohya(tmp_path / "boxes", 16), tmp_path / "out"
    rows = train(folder, output)
    assert [row["step"] for row in rows] == [1, STEPS]
    first, last = rows[0], rows[-1]
    assert first["held_out/right"] == pytest.approx(1, abs=0.03) == first["held_out/wrong"], (
        "a fresh adapter is the base"
    )
    assert last["held_out/right"] < 0.95 and last["held_out/right"] < last["held_out/wrong"] - 0.003
    assert last["held_out/prior_outside"] > 0.6
    for name in NUMBERS:
        values = [last[f"held_out/{name}_{share}"] for share in TIMESTEPS]
        assert sum(values) / len(values) == pytest.approx(last[f"held_out/{name}"], abs=1e-5)
    assert Image.open(output / "held_out.png").width > 1000 and not (output / "sheets").exists()
    best, result = (
        load_adapter(output / name).state_dict() for name in ("adapter.best.safetensors", "adapter.safetensors")
    )
    assert all(torch.equal(best[name], result[name]) for name in result), "the last step is the best"
    assert read_header(output / "adapter.safetensors").provenance["pictures"] == 12
    capsys.readouterr()
    # Longer and too fast: the error rises, and the adapter of the best step stays.
    rows = train(
        folder, output, "--train.steps", str(STEPS + 4), "--validation.at", str(STEPS + 4), "--learning_rate", "0.5"
    )
    assert rows[-1]["held_out/right"] > last["held_out/right"]
    assert read_header(output / "adapter.best.safetensors").provenance["step"] == STEPS
    assert f"lowest at step {STEPS}" in capsys.readouterr().out
    assert json.loads((output / "log.jsonl").read_text().splitlines()[-1])["step"] == STEPS + 4


def entries(root: Path, names: list[str]) -> list[CacheEntry]:
    (template,) = read_pictures(pictures.kohya(root, 1)).pictures
    made = [replace(template, path=root / name) for name in names]
    return [CacheEntry(root / "shard", row, (128, 128), 1, picture) for row, picture in enumerate(made)]


def test_a_picture_that_is_added_moves_no_other_to_the_held_out_ones(tmp_path: Path):
    few = entries(tmp_path / "few", [f"{n}.jpg" for n in range(20)])
    more = entries(tmp_path / "more" / "few", [f"{n}.jpg" for n in range(40)])

    def names(found: list[CacheEntry]) -> set[str]:
        return {entry.picture.path.name for entry in found if entry.picture is not None}

    trained, held = hold_out(few, 5)
    assert (len(trained), len(held)) == (15, 5) and not names(trained) & names(held)
    assert not names(hold_out(more, 5)[1]) & names(trained)
    assert hold_out(few, 0) == (few, [])
    with pytest.raises(ValueError, match="data.held_out is 20, but only 20 pictures can be used"):
        hold_out(few, 20)


def row(step: int, right: float, wrong: float = 2.0) -> dict[str, float]:
    return {"step": step, "held_out/right": right, "held_out/wrong": wrong}


def test_the_best_step_has_a_use_for_the_right_reference():
    best_step = recipe("best").best_step
    assert best_step([row(1, 1.0, 1.0), row(2, 0.8, 0.79), row(3, 0.9, 0.95), row(4, 0.92, 1.2)]) == 3
    assert best_step([row(1, 1.0, 1.0)]) is None


def test_the_best_file_follows_a_run_that_goes_back(tmp_path: Path):
    """States of the steps 2, 4 and 6 are kept. The best steps up to them are 2, 3 and 6."""
    path, state = tmp_path / "adapter.best.safetensors", tmp_path / "state.safetensors"
    errors = [0.9, 0.8, 0.7, 0.75, 0.65, 0.6]
    rows = [row(step, error) for step, error in enumerate(errors, start=1)]
    best = recipe("best").BestFile(path, state)

    def session(first: int, measured: list[dict[str, float]]) -> None:
        for count, new in enumerate(measured[first:], start=first + 1):
            step = int(new["step"])
            if best.is_best(measured[:count], step):
                provenance = {"provenance": json.dumps({"step": step})}
                write_tensors({"weight": torch.full((1,), new["held_out/right"])}, path, provenance)
                best.written(measured[:count], step)
            if step % 2 == 0:
                write_tensors({"weight": torch.zeros(1)}, state, {"step": str(step)})
                keep(state, at_step(state, step))

    def present() -> tuple[int | None, float]:
        return recipe("best").step_of(path), round(float(load_file(path)["weight"]), 3)

    session(0, rows)
    assert present() == (6, 0.6)
    kept = sorted(file.name for file in tmp_path.glob("adapter.*"))
    assert kept == [path.name, *(f"adapter.best.step000000{step}.safetensors" for step in (2, 3, 6))]
    go_back(state, 4)
    best.resume(rows, 4)
    assert present() == (3, 0.7), "what was the best at step 4"
    other = [*rows[:4], row(5, 0.72), row(6, 0.69)]
    session(4, other)
    assert present() == (6, 0.69)
    best.resume(other, 6)
    assert present() == (6, 0.69), "nothing changes where the file is that of the log"


def test_a_best_file_of_steps_that_are_repeated_is_not_taken_for_the_best(tmp_path: Path):
    """A run that was killed before its first state begins again."""
    path = tmp_path / "adapter.best.safetensors"
    write_tensors({"weight": torch.zeros(1)}, path, {"provenance": json.dumps({"step": 5})})
    best = recipe("best").BestFile(path, tmp_path / "state.safetensors")
    best.resume([row(5, 0.1)], 0)
    assert not path.exists() and (tmp_path / "adapter.best.step0000005.safetensors").exists()
    assert best.is_best([row(2, 0.5)], 2)


def test_the_steps_of_sheets():
    sheets = SheetConfig(every=10, at=(1, 5))
    assert [step for step in range(1, 24) if sheets.due(step, 23)] == [1, 5, 10, 20, 23]
    assert [step for step in range(1, 24) if SheetConfig(every=0, at=(3,)).due(step, 23)] == [3]
    assert not SheetConfig(every=0).active
