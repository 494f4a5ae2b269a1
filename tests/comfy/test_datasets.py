"""Tables [[data.folders]] in a config file, by the commands."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pictures
import pytest
from comfyui_moa.moa_attention.formats.adapter import read_header
from comfyui_moa.recipes.adapter.settings import SettingsError, read_settings
from commands import command
from test_commands import refusal

TABLES = """
output = "{out}"
tracker = "none"
models.checkpoint = "moa-mini"
adapter.rank = 2
validation.every = 0
train = {{ steps = 1, batch_size = 2, precision = "float32" }}
data.side = 128

[[data.folders]]
folder = "{first}"
licence = "CC0-1.0"
description = "boxes"
repeats = 2
shuffles = 2

[[data.folders]]
folder = "{second}"
licence = "CC BY 4.0"
trigger = "a drawing"
weight = 0.5
"""


def write_tables(folder: Path, first: Path, second: Path, more: str = "") -> str:
    path = folder / "c.toml"
    path.write_text(
        TABLES.format(out=(folder / "out").as_posix(), first=first.as_posix(), second=second.as_posix()) + more
    )
    return str(path)


def test_a_run_reads_every_table_and_an_archive_and_keeps_their_licences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    boxes, shards = pictures.kohya(tmp_path / "boxes"), tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "000.tar", "w") as archive:
        for file in sorted(boxes.iterdir()):
            archive.add(file, file.name)
    config = write_tables(tmp_path, boxes, shards)
    command("plan", config)
    assert "holds archives, so that epochs and disk are not planned" in capsys.readouterr().out
    command("train", config)
    report = (tmp_path / "out" / "left_out.txt").read_text()
    count = int(report.split()[0])
    header = read_header(tmp_path / "out" / "adapter.safetensors")
    assert count == header.provenance["pictures"] and count % 2 == 0, "the same pictures twice"
    assert header.licence == "CC0-1.0; CC BY 4.0" and header.provenance["data"] == "boxes"
    assert [(f["folder"], f["licence"], f["repeats"], f["weight"]) for f in header.provenance["folders"]] == [
        ("boxes", "CC0-1.0", 2, 1.0), ("shards", "CC BY 4.0", 1, 0.5)
    ]  # fmt: skip


def test_mistakes_name_the_table(tmp_path: Path):
    good = tmp_path / "good"
    good.mkdir()
    config = write_tables(tmp_path, good, tmp_path / "missing")
    for name in ("train", "prepare"):
        assert f"{name}: data.folders, table 2: there is no folder of pictures" in refusal(name, config)
    config = write_tables(tmp_path, good, good)
    assert "data.folders: " in refusal("train", config) and "contain the same pictures" in refusal("train", config)
    config = write_tables(tmp_path, tmp_path, good, 'captions = "m.csv"')
    assert "data.folders, table 2: There is no metadata file" in refusal("train", config)
    for line, message in {
        "repeats = 0": "data.folders.1: repeats is 0 and must be in the range 1 to",
        'licens = "x"': "data.folders.1.licens: Unexpected keyword argument",
        "tag_dropout = 0.5": "tag_dropout leaves out tags of the versions",
        '[data]\nfolder = "x"': "is not valid TOML",
    }.items():
        with pytest.raises(SettingsError, match=message):
            read_settings(Path(write_tables(tmp_path, good, good, line)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('folder = "x"', "licence is missing"),
        ('licence = "x"', "name one folder of pictures in data.folder, or several"),
        ('folder = "x"\nlicence = "y"\nfolders = [{ folder = "a", licence = "b" }]', "name one folder"),
        ('licence = "y"\nfolders = [{ folder = "a", licence = "b" }]', "has its own licence and description"),
    ],
)
def test_one_folder_or_several(tmp_path: Path, data: str, message: str):
    (tmp_path / "c.toml").write_text(f'output = "out"\nmodels.checkpoint = "moa-mini"\ntrain.steps = 1\n[data]\n{data}')
    with pytest.raises(SettingsError, match=message):
        read_settings(tmp_path / "c.toml")
