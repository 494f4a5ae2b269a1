"""`python dev.py plan`: what a run will need, from a checkpoint's header alone."""

from __future__ import annotations

import importlib
import json
import struct
from pathlib import Path

import host
import pytest
import subjects  # noqa: F401  (imports the pack)
from comfyui_moa.recipes.adapter.settings import SettingsError, read_settings


def plan(config: Path, *arguments: str) -> None:
    importlib.import_module("comfyui_moa.recipes.adapter.plan").main([str(config), *arguments])


def hollow_checkpoint(path: Path, base: str) -> None:
    """A file with the names and shapes of a U-Net and nothing else: gigabytes that take no room on the disk."""
    model = host.build(*host.real_width(base), "meta")
    header, end = {}, 0
    for name, weight in model.diffusion_model.state_dict().items():
        start, end = end, end + 2 * weight.numel()
        header[f"model.diffusion_model.{name}"] = {
            "dtype": "F16", "shape": list(weight.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def settings(path: Path, checkpoint: str, **train: object) -> Path:
    values = ", ".join(f"{name} = {json.dumps(value)}" for name, value in {"steps": 100, **train}.items())
    path.write_text(
        f"""
        output = "out"
        models = {{ checkpoint = "{checkpoint}", clip_vision = "some.safetensors" }}
        data = {{ folder = "pictures", licence = "CC0-1.0" }}
        train = {{ {values} }}
        """
    )
    return path


@pytest.mark.parametrize(("base", "parameters"), [("sd15", 859.5e6), ("sdxl", 2567.5e6)])
def test_plan_names_what_would_make_it_fit(
    base: str, parameters: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hollow_checkpoint(tmp_path / "base.safetensors", base)
    config = settings(tmp_path / "a.toml", (tmp_path / "base.safetensors").as_posix(), batch_size=8)
    plan(config, "--card", "RTX 3060")
    rows = [
        line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ") and "GiB" not in line
    ]
    names, totals = [row[1].strip() for row in rows], [float(row[5]) for row in rows]
    assert names[0] == "as it is" and "train.checkpointing = true" in names[2] and "rank = 64" in names[3]
    assert totals[0] > totals[1] > totals[3] > totals[4] and totals[0] > 1.5 * totals[-1]
    assert rows[0][6].strip() in ("yes", "no") and float(rows[0][7]) >= 0
    assert float(rows[0][2]) == pytest.approx(parameters * 2 / 2**30, rel=0.01)


def test_plan_refuses_what_it_cannot_read(tmp_path: Path):
    with pytest.raises(SystemExit, match="nothing.safetensors cannot be read"):
        plan(settings(tmp_path / "a.toml", "nothing.safetensors"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output = 1", "models: Field required"),
        (
            "output = 'o'\nmodels.checkpoint = 'a'\ndata = { folder = 'f', licence = 'l' }\ntrain.steps = 'many'",
            "train.steps",
        ),
        ("output = 'o'\nmodels.chekpoint = 'a'", "models.chekpoint: Unexpected keyword"),
        ("output = ", "is not valid TOML"),
    ],
)
def test_mistakes_in_a_config_file_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_settings(tmp_path / "c.toml")


def test_the_example_can_be_read():
    root = Path(__file__).resolve().parents[2]
    assert read_settings(root / "recipes" / "adapter" / "example.toml").train.checkpointing
