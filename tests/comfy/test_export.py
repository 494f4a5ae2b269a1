"""`dev.py export` and `train --from-step`: the adapter of any kept state, the mean of several, and a run that goes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pictures
import pytest
import torch
from comfyui_moa.moa_attention.formats.adapter import load_adapter, read_header
from comfyui_moa.recipes import merge
from commands import command
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def write_config(folder: Path, **options: Any) -> Path:
    path = folder / "c.toml"
    settings = {"steps": 4, "batch_size": 2, "precision": "float32", "keep_every": 2, "save_every": 1, **options}
    train = "\n".join(f"train.{name} = {json.dumps(value)}" for name, value in settings.items())
    path.write_text(
        f"""
        output = "{(folder / "out").as_posix()}"
        models.checkpoint = "moa-mini"
        data = {{ folder = "{pictures.kohya(folder / "boxes").as_posix()}", licence = "CC0-1.0", side = 128 }}
        adapter.rank = 2
        validation.every = 0
        {train}
        """
    )
    return path


def steps(output: Path) -> list[int]:
    rows = map(json.loads, (output / "log.jsonl").read_text().splitlines())
    return [row["step"] for row in rows if "loss" in row]


def scalars(output: Path) -> list[int]:
    """The steps whose loss TensorBoard shows."""
    board = EventAccumulator(str(output / "tensorboard"))
    board.Reload()
    return [event.step for event in board.Scalars("loss")]


def test_kept_states_are_exported_and_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config, output = write_config(tmp_path), tmp_path / "out"
    command("train", str(config))
    assert scalars(output) == [1, 2, 3, 4]
    stored = {
        step: {name.removeprefix("average.module."): tensor for name, tensor in load_file(path).items()}
        for step, path in {2: output / "state.step0000002.safetensors", 4: output / "state.safetensors"}.items()
    }
    command("export", str(config))
    command("export", str(config), "--step", "2", "4")
    newest, result, mean = (
        load_adapter(output / f"adapter{variant}.safetensors").state_dict()
        for variant in (".step0000004", "", ".step0000002-step0000004")
    )
    for name, tensor in result.items():
        assert torch.equal(newest[name], tensor)
        expected = (stored[2][name] + stored[4][name]) / 2
        torch.testing.assert_close(mean[name].float(), expected, rtol=2e-3, atol=1e-4)
    assert read_header(output / "adapter.step0000004.safetensors").provenance["step"] == 4

    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"No state of step 1 is kept in .*out\. There are those of 2, 3, 4\."):
        command("export", str(config), "--step", "1")
    with pytest.raises(SystemExit, match="adapter.rank 2, now 8. Use the earlier values"):
        command("export", str(config), "--rank", "8")

    command("train", str(config), "--from-step", "2")
    assert steps(output) == [1, 2, 3, 4] == scalars(output)
    again = load_adapter(output / "adapter.safetensors").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in result.items()), "the same steps, the same bits"
    assert sorted(p.name for p in output.glob("state*")) == [
        "state.previous.safetensors", "state.safetensors", "state.step0000002.safetensors", "state.step0000004.safetensors"
    ]  # fmt: skip


def test_files_of_one_run_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config, output = write_config(tmp_path), tmp_path / "out"
    command("train", str(config))
    command("export", str(config), "--step", "2")
    files = [str(output / f"adapter{variant}.safetensors") for variant in ("", ".step0000002")]
    mean = tmp_path / "mean.safetensors"
    merge.main([*files, "--weights", "3", "1", "--out", str(mean)])
    assert (
        "0.750 × adapter.safetensors, 0.250 × adapter.step0000002.safetensors, licence: CC0-1.0"
        in capsys.readouterr().out
    )
    last, second = (load_file(file) for file in files)
    for name, tensor in load_file(mean).items():
        expected = 0.75 * last[name].float() + 0.25 * second[name].float()
        torch.testing.assert_close(tensor.float(), expected, rtol=1e-3, atol=1e-6)
    assert read_header(mean).provenance["base"] == "moa-mini"
    for arguments, message in (
        ([*files, "--out", str(mean)], "exists already"),
        ([files[0], "--out", "x.bin"], "must be a"),
    ):
        with pytest.raises(SystemExit):
            merge.main(arguments)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="merge: a mean needs at least two adapter files"):
        merge.main([files[0], "--out", str(tmp_path / "one.safetensors")])


def test_a_learning_rate_is_suggested_and_the_run_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config, output = write_config(tmp_path), tmp_path / "out"
    command("train", str(config), "--train.steps", "1")
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    monkeypatch.setattr("comfyui_moa.recipes.adapter.find_rate.STEPS", 10)
    monkeypatch.setattr("comfyui_moa.moa_attention.training.rate_finder.LOWEST", 1e-4)
    monkeypatch.setattr("comfyui_moa.moa_attention.training.rate_finder.HIGHEST", 1e-2)
    capsys.readouterr()
    command("train", str(config), "--train.steps", "2", "--find-rate")
    assert "Suggested: train.learning_rate = " in capsys.readouterr().out
    assert Image.open(output / "learning_rate.png").size[0] > 100
    after = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"learning_rate.png"}


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    config = write_config(tmp_path)
    for name, option in (("export", []), ("train", ["--from-step", "3"])):
        with pytest.raises(SystemExit, match=f"{name}: output: .*out contains no state of a run"):
            command(name, str(config), *option)


def test_without_a_tracker_there_is_only_the_log(tmp_path: Path):
    command("train", str(write_config(tmp_path, steps=1)), "--tracker", "none")
    assert not (tmp_path / "out" / "tensorboard").exists() and steps(tmp_path / "out") == [1]


def test_weights_and_biases_receive_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = write_config(tmp_path, steps=2)
    sheets = ["--validation.every", "2", "--validation.steps", "1", "--validation.prompts", "a man on a beach"]
    command("train", str(config), "--tracker", "wandb", *sheets)
    (folder,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))[0].stat().st_size > 1000
    assert list(folder.glob("files/media/images/validation*.png")), "the sheet"


def test_a_tracker_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="tracker: 'wandb' needs the package wandb.*Run `pip install wandb`"):
        command("train", str(write_config(tmp_path)), "--tracker", "wandb")
