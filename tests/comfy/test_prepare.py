"""`dev.py prepare`: captions, masks and their words, made by real tiny models; no file of the user is changed."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from comfyui_moa.moa_attention.training.data.folder import read_pictures
from PIL import Image

from devtools import host as hosts

ASTRONAUT = Path(__file__).with_name("astronaut.jpg")  # NASA's portrait of Eileen Collins, public domain


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "captioner": tiny_models.captioner(folder / "captioner"),
        "segmenter": tiny_models.segmenter(folder / "segmenter"),
        "instances": tiny_models.instance_segmenter(folder / "instances"),
        "clip": tiny_models.clip(folder / "clip", hosts.find() / "comfy" / "sd1_tokenizer"),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    return made


def prepare(folder: Path, **options: object) -> str:
    """Run the command; returns its report."""
    config, output = folder.with_suffix(".toml"), folder.with_name("out")
    lines = "\n".join(
        f"prepare.{name} = {str(value)!r}" if name != "labels" else f"prepare.labels = ['{value}']"
        for name, value in options.items()
    )
    config.write_text(
        f"""
        output = "{output.as_posix()}"
        models.checkpoint = "moa-mini"
        data = {{ folder = "{folder.as_posix()}", licence = "CC0-1.0", side = 128 }}
        train = {{ steps = 1, batch_size = 1, learning_rate = 1e-3, precision = "float32" }}
        validation.every = 0
        {lines}
        """
    )
    importlib.import_module("comfyui_moa.recipes.adapter.prepare").main([str(config)])
    return (output / "prepared" / "report.txt").read_text(encoding="utf-8")


def agreement(mask: Path, truth: np.ndarray) -> float:
    """Intersection over union."""
    found = np.asarray(Image.open(mask)) > 127
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("segmenter", ["segmenter", "instances"])
def test_captions_and_matched_masks_are_made(folder: Path, models: dict[str, Path], segmenter: str):
    chosen = {"captioner": models["captioner"], "segmenter": models[segmenter], "clip": models["clip"]}
    truth = {}
    for number, nouns in enumerate(tiny_models.CASES):
        image, truth[number] = tiny_models.boxes(nouns, 10 + number)
        image.save(folder / f"{number}.jpg", quality=95)
    (folder / "3.txt").write_text("a man beside a woman\n")  # though the woman stands on the left
    assert prepare(folder, **chosen).startswith("4 pictures to train on, 0 left out\n")
    for number, nouns in enumerate(tiny_models.CASES[:3]):
        assert (folder / f"{number}.txt").read_text().strip() == tiny_models.caption(nouns)
        for place, mask in enumerate(truth[number], start=1):
            assert agreement(folder / f"{number}.mask{place}.png", mask) > 0.8
    assert (folder / "3.txt").read_text() == "a man beside a woman\n"
    assert agreement(folder / "3.mask1.png", truth[3][1]) > 0.8
    assert agreement(folder / "3.mask2.png", truth[3][0]) > 0.8
    assert Image.open(folder.with_name("out") / "prepared" / "contact_001.jpg").width > 900
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    prepare(folder, **chosen)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
    importlib.import_module("comfyui_moa.recipes.adapter.train").main([str(folder.with_suffix(".toml"))])
    assert (folder.with_name("out") / "adapter.safetensors").is_file()


def test_what_cannot_be_used_is_counted_and_listed(folder: Path, models: dict[str, Path]):
    for name, caption in {"one": "a man", "wordless": "a grey room", "merged": "a man and a woman", "bare": ""}.items():
        tiny_models.boxes(["man"])[0].save(folder / f"{name}.jpg")
        if caption:
            (folder / f"{name}.txt").write_text(caption)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "broken.txt").write_text("a man")
    tiny_models.boxes([])[0].save(folder / "empty_room.jpg")
    (folder / "empty_room.txt").write_text("a woman")
    report = prepare(folder, segmenter=models["segmenter"])
    assert report.startswith("1 pictures to train on, 5 left out\n")
    assert "2 × no mask" in report and "1 × no caption" in report
    assert re.search("wordless.jpg: no word for a subject: 'a grey room'", report)
    assert re.search("broken.jpg: unreadable picture", report)
    assert "merged.jpg: no masks are made: 1 silhouettes for 2 words in 'a man and a woman'" in report
    assert not list(folder.glob("merged.mask*"))


def test_more_people_than_words_keeps_the_largest(folder: Path, models: dict[str, Path]):
    image, (left, _) = tiny_models.boxes(["man", "woman"])
    small = np.array(image)
    small[:90, 64:] = 128
    Image.fromarray(small).save(folder / "a.jpg", quality=95)
    (folder / "a.txt").write_text("a man")
    report = prepare(folder, segmenter=models["segmenter"])
    assert "a.jpg: the largest silhouettes are used: 2 silhouettes for 1 words in 'a man'" in report
    assert agreement(folder / "a.mask1.png", left) > 0.8
    assert not (folder / "a.mask2.png").exists()


def test_the_small_segmenter_finds_a_real_person(folder: Path):
    shutil.copyfile(ASTRONAUT, folder / "a.jpg")
    (folder / "a.txt").write_text("a woman in a space suit")
    assert prepare(folder).startswith("1 pictures to train on, 0 left out\n")
    mask = np.asarray(Image.open(folder / "a.mask1.png")) / 255
    assert mask[50, 112] > 0.9 and mask[180, 90] > 0.9  # face and suit
    assert mask[20, 20] < 0.1 and mask[20, 200] < 0.1  # flag and rocket
    assert 0.35 < mask.mean() < 0.7


@pytest.mark.parametrize(
    "field, example", [("captioner", "BLIP"), ("segmenter", "Mask2Former"), ("clip", "CLIP ViT-L/14")]
)
def test_a_folder_without_a_model_is_refused(folder: Path, field: str, example: str):
    with pytest.raises(SystemExit, match=f"prepare.{field}: /nowhere contains no model of transformers.*{example}"):
        prepare(folder, **{field: "/nowhere"})


def test_labels_that_the_segmenter_does_not_know_are_refused(folder: Path, models: dict[str, Path]):
    with pytest.raises(SystemExit, match=r"knows none of \['teapot'\]; it knows \['person', 'wall'\]"):
        prepare(folder, segmenter=models["segmenter"], **{"labels": "teapot"})


def test_an_existing_mask_is_left_alone(folder: Path, models: dict[str, Path]):
    tiny_models.boxes(["man"])[0].save(folder / "a.jpg")
    Image.new("L", (128, 128), 255).save(folder / "a.png")
    prepare(folder, captioner=models["captioner"], segmenter=models["segmenter"])
    assert sorted(p.name for p in folder.iterdir()) == ["a.jpg", "a.png", "a.txt"]
    ((picture),) = read_pictures(folder).pictures
    assert picture.subjects[0].mask.path.name == "a.png"
