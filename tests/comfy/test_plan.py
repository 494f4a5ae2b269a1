"""`python dev.py plan`: what a run will need, from a checkpoint's header alone."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import commands
import full_width
import pictures
import pytest
from comfyui_moa.moa_attention.training.cache.building import build_cache
from comfyui_moa.moa_attention.training.cache.entries import CacheSettings
from comfyui_moa.moa_attention.training.data.folder import read_pictures
from comfyui_moa.nodes.host.files.mini_files import load_mini
from comfyui_moa.nodes.host.training.encoders import HostEncoders
from comfyui_moa.recipes.adapter.course import fitting
from comfyui_moa.recipes.adapter.settings import SettingsError, read_settings

ROOT = Path(__file__).resolve().parents[2]


def plan(config: Path, *arguments: str) -> None:
    importlib.import_module("comfyui_moa.recipes.adapter.plan").main([str(config), *arguments])


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


def test_plan_names_what_would_make_it_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = full_width.hollow_checkpoint(tmp_path / "base.safetensors", "sd15")
    config = settings(tmp_path / "a.toml", checkpoint.as_posix(), batch_size=8)
    _, rows = table(capsys, config, "--card", "RTX 3060")
    names, totals = [row[0] for row in rows], [float(row[5]) for row in rows]
    assert names[0] == "as it is" and "train.checkpointing = true" in names[2] and "rank = 64" in names[3]
    assert totals[0] > totals[1] > totals[3] > totals[4] and totals[0] > 1.5 * totals[-1]
    assert rows[0][6] in ("yes", "no") and float(rows[0][7]) >= 0
    assert 'weights = "fp8"' in names[-1]
    check_weights(rows, 859.5e6)


def test_plan_counts_the_weights_of_sdxl(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = full_width.hollow_checkpoint(tmp_path / "base.safetensors", "sdxl")
    few = {"batch_size": 1, "checkpointing": True, "ema_decay": 0.0}
    _, rows = table(capsys, settings(tmp_path / "a.toml", checkpoint.as_posix(), **few), "--adapter.rank", "64")
    check_weights(rows, 2567.5e6)
    working = [float(row[3]) for row in (rows[0], rows[-1])]
    assert working[1] < working[0] + 0.3, "converted weights of 8 bits are kept for one block at a time"


def check_weights(rows: list[list[str]], parameters: float) -> None:
    """Two bytes for each weight of the base model, and one in 8 bits."""
    assert float(rows[0][1]) == pytest.approx(parameters * 2 / 2**30, rel=0.01)
    assert float(rows[-1][1]) == pytest.approx(parameters / 2**30, rel=0.01)


def table(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> tuple[str, list[list[str]]]:
    """The first line that `plan` prints, and the cells of its table."""
    plan(config, *arguments)
    first, *lines = capsys.readouterr().out.splitlines()
    return first, [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][1:]


def test_plan_for_other_memory_and_several_cards(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = settings(tmp_path / "a.toml", "moa-mini", batch_size=8, steps=100_000, checkpointing=True, ema_decay=0.0)
    _, one = table(capsys, config, "--card", "RTX 3060")
    heading, four = table(capsys, config, "--card", "RTX 3060", "--gpus", "4")
    assert heading == "4 × RTX 3060: 12 GiB, 51 TFLOP/s by its data sheet"
    assert float(four[0][7]) == pytest.approx(float(one[0][7]) / 4, abs=0.2), "hours"
    assert float(four[0][3]) < float(one[0][3]), "two pictures instead of eight"
    total = float(one[0][5])
    fits = [
        table(capsys, config, "--gib", str(gib))[1][0][6:] for gib in (round(total - 0.1, 2), round(total + 0.1, 2))
    ]
    assert fits == [["no", ""], ["yes", ""]], "without a card no hours"
    with pytest.raises(SystemExit, match="batch_size 8 cannot be divided among 3 processes"):
        plan(config, "--gpus", "3")
    with pytest.raises(SystemExit):
        plan(config, "--gib", "-8")
    assert "-8 is not above 0" in capsys.readouterr().err


def test_plan_states_epochs_disk_and_the_cards_that_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The cache that is planned is the one that is made."""
    folder = pictures.kohya(tmp_path / "boxes", 9)
    config = settings(tmp_path / "a.toml", "moa-mini", steps=90, batch_size=4)
    options = ("--data.folder", str(folder), "--data.side", "128", "--adapter.rank", "4")
    plan(config, *options, "--gpus", "2")
    text = capsys.readouterr().out
    assert "9 pictures: an epoch is 2.2 steps of 4 pictures, 2 on each of 2 cards; 90 steps are 40.0 epochs." in text
    assert "Cards of 8 GiB: as it is; 12 GiB: as it is; 16 GiB" in text
    for path in folder.glob("*.mask2.png"):  # the plan is for one subject
        path.unlink()
    encoders = HostEncoders(*load_mini(ROOT / "weights" / "mini"))
    cache = tmp_path / "cache"
    wanted = CacheSettings(128, 0, "fastcomposer")
    cached = build_cache(read_pictures(folder), encoders, wanted, cache, lambda *_: None)
    made = sum(path.stat().st_size for path in cache.glob("*.safetensors")) / len(cached.entries)
    (planned,) = re.findall(r"([\d,]+) KiB for a picture", text)
    assert int(planned.replace(",", "")) == pytest.approx(made / 1024, rel=0.03)


def test_plan_states_the_room_that_the_states_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The state that is planned is the one that a run writes."""
    folder = pictures.kohya(tmp_path / "boxes", 2)
    config = settings(tmp_path / "a.toml", "moa-mini", steps=3, batch_size=1, keep_every=1, precision="float32")
    options = (
        "--output",
        str(tmp_path / "out"),
        "--data.folder",
        str(folder),
        "--data.side",
        "128",
        "--tracker",
        "none",
    )
    options = (*options, "--models.clip_vision", "", "--validation.every", "0", "--adapter.rank", "4")
    plan(config, *options)
    text = capsys.readouterr().out
    found = re.search(r"at most ([\d.]+) GiB .*, and 3 that train.keep_every keeps, ([\d,]+) MiB each", text)
    assert found is not None, text
    commands.command("train", str(config), *options)
    size = (tmp_path / "out" / "state.safetensors").stat().st_size
    assert int(found[2].replace(",", "")) == pytest.approx(size / 2**20, rel=0.03)
    assert float(found[1]) == pytest.approx(6 * size / 2**30, abs=0.01)


def test_plan_names_the_first_setting_with_which_a_card_is_large_enough():
    totals = [("as it is", 40.0), ("less", 14.0), ("least", 9.0)]
    assert fitting(totals) == (
        "Cards of 8 GiB: none of these; 12 GiB: least; 16 GiB: less; 24 GiB: less; 48 GiB: as it is; 80 GiB: as it is."
    )


def test_plan_refuses_a_base_in_8_bits_that_would_save_nothing(tmp_path: Path):
    full_width.hollow_checkpoint(tmp_path / "base.safetensors", "sd15")
    config = settings(tmp_path / "a.toml", (tmp_path / "base.safetensors").as_posix())
    with pytest.raises(SystemExit, match=r'models.weights = "fp8" saves memory only with train.checkpointing = true'):
        plan(config, "--models.weights", "fp8")


def test_plan_refuses_what_it_cannot_read(tmp_path: Path):
    with pytest.raises(SystemExit, match="models.checkpoint: there is no file .*nothing.safetensors"):
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


def test_the_plan_counts_the_forward_pass_of_the_prior_consistency(tmp_path: Path):
    estimate = importlib.import_module("comfyui_moa.recipes.adapter.meta_model").estimate
    plain, held = (
        estimate(read_settings(settings(tmp_path / "c.toml", "moa-mini", batch_size=1, consistency_weight=w)), True)
        for w in (0.0, 1.0)
    )
    assert 1.2 < held.flops / plain.flops < 1.45, "two passes of backward, one or two of forward"
    assert held.working <= 1.2 * plain.working
