"""Shared by tests of the evaluation: drawn people, config files, the command itself."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import subjects  # noqa: F401  (imports the pack)
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]


def draw(path: Path, skin: str, shirt: str) -> None:
    image = Image.new("RGB", (96, 120), "#ece8e0")
    pen = ImageDraw.Draw(image)
    pen.ellipse((24, 12, 72, 78), fill=skin)
    pen.rectangle((12, 84, 84, 119), fill=shirt)
    image.save(path)


def drawn_people(folder: Path) -> Path:
    """Two men; one of them has a second picture."""
    folder.mkdir()
    for name, skin, shirt in (("adam", "#7b4b2a", "#2060c0"), ("bert", "#f0c8a0", "#c02020")):
        draw(folder / f"{name}.png", skin, shirt)
        (folder / f"{name}.txt").write_text("man\n")
    draw(folder / "adam.other.png", "#7b4b2a", "#20a040")
    return folder


def config(path: Path, folder: Path, checkpoint: str = "moa-mini", **options: object) -> Path:
    """A config file in `path`, two prompts for one subject and one for two beside it."""
    (path / "prompts.txt").write_text("a {} on a beach\n\na {} in a forest\n")
    (path / "pairs.txt").write_text("a {} and a {} on a beach\n")
    values = {
        "people": folder.as_posix(), "adapter": (ROOT / "weights/mini/adapter.safetensors").as_posix(), "pictures": 1,
        "prompts": (path / "prompts.txt").as_posix(), "pair_prompts": (path / "pairs.txt").as_posix(), "steps": 2,
        "regions": "router",
    } | options  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    file = path / "config.toml"
    head = [
        f'output = "{(path / "out").as_posix()}"', f'models.checkpoint = "{checkpoint}"', "train.steps = 1",
        'data = { folder = "unused", licence = "CC0-1.0", side = 128 }', "[evaluation]",
    ]  # fmt: skip
    file.write_text("\n".join([*head, *lines]))
    return file


def evaluate(file: Path) -> dict:
    """The result that the command writes."""
    importlib.import_module("comfyui_moa.recipes.adapter.evaluate").main([str(file)])
    return json.loads((file.parent / "out" / "evaluation" / "evaluation.json").read_text())


def times(file: Path) -> dict[str, int]:
    """The time at which each picture was written, by its name."""
    return {p.name: p.stat().st_mtime_ns for p in (file.parent / "out" / "evaluation" / "pictures").glob("*.png")}
