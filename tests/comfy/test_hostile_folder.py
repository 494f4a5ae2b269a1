"""A folder of hostile files on the whole road: prepare, plan, train, eval and the node account for every file of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import evaluations
import pytest
import subjects  # noqa: F401  (imports the pack)
import torch
from comfyui_moa.moa_attention.formats.errors import printable
from comfyui_moa.nodes.host.files.mini_files import load_mini
from comfyui_moa.nodes.train import MoATrain
from commands import command
from hostile_folder import HostileFolder, make_hostile_folder
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hostile(base: Path) -> HostileFolder:
    return make_hostile_folder(base / "input" / "hostile")


@pytest.fixture(scope="module")
def config(hostile: HostileFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    people = evaluations.drawn_people(folder / "people")
    file = evaluations.config(folder, people, pairs=0, adapter="")
    text = file.read_text().replace('folder = "unused"', f'folder = "{hostile.root.as_posix()}"')
    train = 'train = { steps = 3, batch_size = 4, precision = "float32", uncondition = 0.3 }\nadapter.rank = 2'
    file.write_text(text.replace("train.steps = 1", f"{train}\nvalidation.every = 0"))
    return file


def check(report: str, hostile: HostileFolder) -> None:
    """Every file is in the report, or belongs to a picture that is expected to be trained on."""
    lines = report.splitlines()
    remarks = {line.split(": ")[0]: line for line in lines}
    of_pictures = sum(len(files) for files in hostile.used.values())
    assert lines[0] == f"{len(hostile.used)} pictures to train on, {len(hostile.left_out)} left out"
    everything = {Path(at) / name for at, folders, files in os.walk(hostile.root) for name in files
                  + [f for f in folders if (Path(at) / f).is_symlink()]}  # fmt: skip
    (sums,) = (line for line in lines if line.endswith(" to no picture"))
    found = [int(number) for number in re.findall(r"\d+", sums)]
    assert found[0] == len(everything) == sum(found[1:]) and found[1] == of_pictures
    for name, reason in {**hostile.left_out, **hostile.unused, **hostile.warned}.items():
        line = printable(hostile.root / name) + ": " + reason
        assert any(re.match(re.escape(printable(hostile.root / name)) + ": " + reason, text) for text in lines), line
    used = {hostile.root / name for files in hostile.used.values() for name in files}
    for path in everything - used:
        group = path.with_name(re.sub(r"\.(mask|ref)\w*$", "", path.stem))
        mentioned = [path, *path.parents, *(group.with_name(group.name + s) for s in (".jpg", ".jpeg", ".png", ".bmp"))]
        assert any(printable(p) in remarks for p in mentioned), f"{path!r} is in no line of the report"


def test_prepare_accounts_for_every_file(hostile: HostileFolder, config: Path, capsys: pytest.CaptureFixture[str]):
    command("prepare", str(config))
    prepared = config.parent / "out" / "prepared"
    check((prepared / "report.txt").read_text(encoding="utf-8"), hostile)
    assert "the full report is in" in capsys.readouterr().out
    sheets = sorted(prepared.glob("contact_*.jpg"))
    assert len(sheets) == -(-(len(hostile.used) + len(hostile.left_out)) // 20)
    assert all(Image.open(sheet).width == 5 * (240 + 16) for sheet in sheets)


def test_plan_train_and_eval(hostile: HostileFolder, config: Path, capsys: pytest.CaptureFixture[str]):
    command("plan", str(config), "--card", "cpu")
    assert "as it is" in capsys.readouterr().out
    command("train", str(config))
    output = config.parent / "out"
    check((output / "left_out.txt").read_text(encoding="utf-8"), hostile)
    again = (output / "left_out.txt").read_text(encoding="utf-8")
    config.write_text(config.read_text().replace("steps = 3,", "steps = 4,"))
    command("train", str(config))  # from the cache
    assert (output / "left_out.txt").read_text(encoding="utf-8") == again
    assert evaluations.evaluate(config)["one_subject"]["pictures"] == 4


def test_the_node(hostile: HostileFolder):
    with torch.inference_mode():
        made = MoATrain.execute(
            *load_mini(ROOT / "weights" / "mini"),
            hostile.root.name,
            "hostile",
            2,
            4,
            0,
            1e-3,
            2,
            128,
            False,
            0,
            "CC0-1.0",
            0,
            "",
        )
    check(made.result[2], hostile)
    assert len(made.result[1]["loss"]) == 2
