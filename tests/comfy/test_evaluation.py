"""`python dev.py eval config.toml` on MoA Mini: the whole command, its measures, and how it resumes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import evaluations
import pytest
import tiny_models
import torch
from comfyui_moa.nodes.host.training.sampler import HostSampler
from evaluations import config, evaluate, times
from PIL import Image

from devtools import host as hosts

COLUMNS = ("prior", "moa", "pinned")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return evaluations.drawn_people(tmp_path / "people")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.clip(tmp_path_factory.mktemp("clip"), hosts.find() / "comfy" / "sd1_tokenizer")


def test_the_whole_command_and_again(tmp_path: Path, people: Path, clip: Path, capsys: pytest.CaptureFixture[str]):
    file = config(tmp_path, people, clip=clip.as_posix())
    found = evaluate(file)
    printed = capsys.readouterr().out
    assert "4 pictures of one subject" in printed and "1 pictures of two subjects" in printed
    assert "| | prior only | MoA | router pinned to personalised |" in re.sub(" +", " ", printed)
    for label in (
        "prompt consistency",
        "likeness",
        "background change",
        "background variance",
        "R_1 inside",
        "by CLIP",
    ):
        assert label in printed
    assert "identity:" not in printed and "Left out: identity, because evaluation.face names no face model." in printed

    prior, moa, pinned = (found["one_subject"]["mean"][column] for column in COLUMNS)
    assert prior["background_change"] == 0 and prior["background_variance"] == 0 and "router_inside" not in prior
    assert 0 < moa["background_change"] < pinned["background_change"]
    assert moa["background_variance"] > 0 and pinned["router_inside"] == 1 and pinned["router_outside"] == 0
    assert moa["router_inside"] > 1 - moa["router_outside"]
    assert all(-1 <= row["likeness"] <= 1 and -1 <= row["copy_paste_look"] <= 1 for row in (prior, moa, pinned))
    assert found["one_subject"]["pictures"] == 4 and found["two_subjects"]["pictures"] == 1
    assert "likeness" not in found["two_subjects"]["mean"]["moa"] and found["regions"] == "router"
    by_subject = found["one_subject"]["by_subject"]
    assert set(by_subject) == {"adam", "bert"} and "copy_paste_look" not in by_subject["bert"]["moa"]
    halves = [by_subject[name]["moa"]["background_change"] for name in by_subject]
    assert sum(halves) / 2 == pytest.approx(moa["background_change"])

    # One prior for both subjects: 2 prompts, then 1; with the adapter 4 and 1 pictures, and as many maps.
    written = times(file)
    assert len(written) == (2 + 1) + 2 * 2 * (4 + 1)
    assert sum("-prior-" in name for name in written) == 3
    for name in ("plot.png", "sheet.png", "evaluation.md"):
        assert (tmp_path / "out" / "evaluation" / name).stat().st_size > 500
    assert evaluate(file) == found and times(file) == written


def test_strength_zero_is_the_base_model(tmp_path: Path, people: Path):
    found = evaluate(config(tmp_path, people, strength=0, pairs=0))
    moa = found["one_subject"]["mean"]["moa"]
    assert moa == {"background_change": 0, "background_variance": 0, "router_outside": 1}
    assert found["two_subjects"]["pictures"] == 0
    assert any("prompt consistency" in line for line in found["notes"])
    assert any("pairs of subjects" in line for line in found["notes"])


def test_other_settings_sample_only_the_pictures_that_change(tmp_path: Path, people: Path):
    evaluate(config(tmp_path, people, pairs=0))
    before = times(file := config(tmp_path, people, pairs=0, strength=0.5))
    evaluate(file)
    after = times(file)
    assert before.items() <= after.items()
    assert {name.split("-")[-3] for name in after.keys() - before.keys()} == {"moa"}


def test_a_stopped_run_keeps_its_pictures(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch):
    file, sample, count = config(tmp_path, people), HostSampler.picture, 0

    def stopping(*args, **options):
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return sample(*args, **options)

    monkeypatch.setattr(HostSampler, "picture", stopping)
    with pytest.raises(SystemExit, match="The same command resumes"):
        evaluate(file)
    kept = times(file)
    monkeypatch.setattr(HostSampler, "picture", sample)
    evaluate(file)
    assert sum(not name.endswith(".router.png") for name in kept) == 3
    assert kept.items() <= times(file).items()


class Colours:
    """A face evaluator for drawings: every picture has one face, its mean colour; a nearly white picture has none."""

    SAME = 0.3

    def __init__(self, _folder: Path, _device: torch.device):
        pass

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        mean = picture.mean(dim=(1, 2))
        return torch.zeros(0, 3) if mean.min() > 0.95 else mean[None]


def test_faces_count_and_a_subject_without_a_face_is_named(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        importlib.import_module("comfyui_moa.recipes.adapter.evaluation.evaluators"), "FaceEvaluator", Colours
    )
    file = config(tmp_path, people, face="any")
    found = evaluate(file)
    one, two = found["one_subject"]["mean"]["moa"], found["two_subjects"]["mean"]["moa"]
    assert 0 < one["identity"] <= 1 and one["recognised"] in (0, 0.25, 0.5, 0.75, 1)
    assert -1 <= one["copy_paste_face"] <= 1
    assert two["identity"] == 0 and two["recognised"] == 0  # one face in the picture, two are expected

    Image.new("RGB", (80, 80), "white").save(people / "carl.png")
    (people / "carl.txt").write_text("man")
    found = evaluate(file)
    assert "Left out: identity of carl, because no face was found in their pictures." in found["notes"]
    assert "identity" not in found["one_subject"]["by_subject"]["carl"]["moa"]
    assert found["one_subject"]["by_subject"]["adam"]["moa"]["identity"] > 0


def test_regions_are_the_segmenters(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch):
    router = evaluate(config(tmp_path, people, pairs=0))
    file = config(tmp_path, people, pairs=0, regions="segmenter")
    assert evaluate(file)["regions"] == "segmenter"  # a tiny model: its masks of drawings are arbitrary

    def left_half(picture: Image.Image) -> list[torch.Tensor]:
        mask = torch.zeros(picture.height, picture.width)
        mask[:, : picture.width // 2] = 1
        return [mask]

    def evaluate_with(segment) -> dict:
        monkeypatch.setattr(evaluators, "open_segmenter", lambda _wanted, _device: segment)
        return evaluate(file)

    evaluators = importlib.import_module("comfyui_moa.recipes.adapter.evaluation.evaluators")
    halves, empty = evaluate_with(left_half), evaluate_with(lambda _picture: [])
    assert halves["regions"] == "segmenter" and router["notes"] != halves["notes"]
    mean = [found["one_subject"]["mean"]["moa"] for found in (router, halves, empty)]
    assert "router_inside" not in mean[2]
    assert mean[1]["router_inside"] < mean[0]["router_inside"]
    case = halves["one_subject"]["cases"][0]
    assert case["people"] == ["adam"] and case["prompt"] == "a man on a beach" and case["pinned"]["router_inside"] == 1


def test_one_command_for_both_evaluations(capsys: pytest.CaptureFixture[str]):
    recipe = importlib.import_module("comfyui_moa.recipes.evaluate")
    with pytest.raises(SystemExit, match="There is no config file nowhere.toml"):
        recipe.main(["nowhere.toml"])
    with pytest.raises(SystemExit):
        recipe.main(["--help"])
    assert "--cases" in capsys.readouterr().out
