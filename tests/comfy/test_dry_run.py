"""`train --dry-run`: the batches of the next steps, as the training draws them, and nothing trained."""

from __future__ import annotations

import importlib
from pathlib import Path

import host
import pictures
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.training.cache.building import build_cache
from comfyui_moa.moa_attention.training.cache.entries import CacheSettings
from comfyui_moa.moa_attention.training.config import PictureConfig, TrainConfig
from comfyui_moa.moa_attention.training.data.examples import CachedExamples
from comfyui_moa.moa_attention.training.data.folder import read_pictures
from comfyui_moa.moa_attention.training.lots import lots
from comfyui_moa.moa_attention.training.workers import Alone
from comfyui_moa.nodes.host.files.mini_files import load_mini
from comfyui_moa.nodes.host.training.encoders import HostEncoders
from comfyui_moa.recipes.adapter.preparation import batches
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_a_dry_run_draws_the_batches_and_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pictures.kohya(tmp_path / "boxes")
    config = tmp_path / "c.toml"
    config.write_text(
        f"""
        output = "{(tmp_path / "out").as_posix()}"
        models.checkpoint = "moa-mini"
        data = {{ folder = "{(tmp_path / "boxes").as_posix()}", licence = "CC0-1.0", side = 128 }}
        train = {{ steps = 2, batch_size = 2, precision = "float32" }}
        adapter.rank = 2
        validation.every = 0
        """
    )
    train = importlib.import_module("comfyui_moa.recipes.adapter.train")
    train.main([str(config), "--dry-run", "--batch_size", "21"])
    sheets = sorted((tmp_path / "out" / "dry_run").iterdir())
    assert [path.name for path in sheets] == ["batches_001.jpg", "batches_002.jpg"], "a whole batch of 21"
    assert [Image.open(path).width > 900 for path in sheets] == [True, False]
    assert "The batches from step 1 on are in" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.safetensors")) and not (tmp_path / "out" / "log.jsonl").exists()
    train.main([str(config)])
    train.main([str(config), "--dry-run", "--train.steps", "9"])
    assert "The batches from step 3 on are in" in capsys.readouterr().out


def test_the_sheet_shows_the_references_and_tokens_of_the_batch(tmp_path: Path):
    encoders = HostEncoders(*load_mini(ROOT / "weights" / "mini"), host.clip_vision(32, subjects.FEATURE))
    wanted = PictureConfig(side=128, views=3)
    settings = CacheSettings(wanted.side, wanted.views, wanted.augmentation)
    found = read_pictures(pictures.kohya(tmp_path / "boxes"))
    cached = build_cache(found, encoders, settings, tmp_path / "cache", lambda *_: None)
    config = TrainConfig(steps=1, batch_size=12, uncondition=0.5)
    examples = CachedExamples(cached.entries, encoders.text("", []), config, wanted.augmentation, None)
    (lot,) = lots(0, config, Alone())
    batch, dropped = examples(lot), 0
    for row, (entry, generator) in enumerate(zip(examples.entries_of(lot), lot.generators, strict=True)):
        example = examples.draw(entry, generator.manual_seed(generator.initial_seed()))
        assert entry.picture is not None
        assert torch.equal(batch.latents[row], example.latents), "the same example as in the batch"
        shown = torch.stack(list(batches.references_of(entry, example, encoders, wanted)))
        torch.testing.assert_close(encoders.features(shown).half().float(), example.references, rtol=1e-3, atol=1e-3)
        lines = [" ".join(word.text for word in line) for line in batches.slot_lines(entry, example, encoders, 1)]
        dropped += example.choice.dropped
        for slot, subject in enumerate([] if example.choice.dropped else example.choice.subjects, start=1):
            end = entry.picture.captions[0].ends[subject]
            word = entry.picture.captions[0].text[:end].split()[-1]
            assert f"'{word}' is subject {slot}" in " ".join(lines)
        assert ("subject" in " ".join(lines)) != example.choice.dropped
        colours = {word.colour for line in batches.caption_of(entry, example) for word in line}
        assert bool(colours & set(batches.COLOURS)) != example.choice.dropped
    assert 0 < dropped < 12
