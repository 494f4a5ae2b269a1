"""Training data: what is read from a folder, what is left out and why, how it is framed, cached and drawn from."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from moa_attention.training.config import TrainConfig
from moa_attention.training.data.augment import Strength, augment, cut_out
from moa_attention.training.data.cache import Cached, CacheSettings, build_cache
from moa_attention.training.data.encoders import Text
from moa_attention.training.data.examples import UNCONDITIONAL, CachedExamples, Order
from moa_attention.training.data.fastcomposer import is_fastcomposer, read_fastcomposer
from moa_attention.training.data.folder import read_folder
from moa_attention.training.data.framing import buckets, frame, nearest
from moa_attention.training.data.pictures import BadPicture, Picture, read_masks
from moa_attention.training.data.words import find_words, take_marks
from moa_attention.training.lots import generator_for, lots
from moa_attention.training.workers import Alone


def picture(path: Path, size: tuple[int, int] = (64, 48), colour: tuple[int, ...] = (200, 30, 30)) -> None:
    Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour).save(path)


def mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (64, 48)) -> None:
    pixels = np.zeros((size[1], size[0]), np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture of each kind that can be read, and one of each that cannot."""
    for name in ("one", "two", "empty", "wordless", "uncaptioned", "crowded", "opaque", "shape"):
        picture(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.txt").write_text("a man on a beach\n")
    (tmp_path / "uncaptioned.txt").unlink()
    (tmp_path / "wordless.txt").write_text("a quiet beach")
    (tmp_path / "two.txt").write_text("a woman and a Man in the snow")
    mask(tmp_path / "one.png", (10, 10, 30, 40))
    mask(tmp_path / "wordless.png", (10, 10, 30, 40))
    mask(tmp_path / "uncaptioned.png", (10, 10, 30, 40))
    mask(tmp_path / "empty.png", (0, 0, 0, 0))
    mask(tmp_path / "shape.png", (10, 10, 30, 40), (64, 64))
    for name in ("two", "crowded"):
        mask(tmp_path / f"{name}.mask1.png", (0, 0, 20, 48))
        mask(tmp_path / f"{name}.mask2.png", (40, 0, 64, 48))
    picture(tmp_path / "two.ref2.png", colour=(1, 2, 3, 255))
    picture(tmp_path / "two.ref2b.jpg")
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[10:40, 10:30] = 255
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    (tmp_path / "clear.txt").write_text("a photo of a robot <|image|> and a man")
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    (tmp_path / "broken.txt").write_text("a man")
    mask(tmp_path / "broken.png", (10, 10, 30, 40))
    return tmp_path


def by_name(pictures: Sequence[Picture]) -> dict[str, Picture]:
    return {p.path.stem: p for p in pictures}


def test_words_and_marks():
    assert find_words("A woman and two men, a Man") == [7, 26]
    assert find_words("a talking teapot", ["teapot"]) == [16]
    assert take_marks("a man <|image|> and a dog<|image|> play") == ("a man and a dog play", [5, 15])
    assert take_marks("a man") == ("a man", [])


def test_folder_is_read_and_says_what_it_left_out(folder: Path):
    reading = read_folder(folder)
    found = by_name(reading.pictures)
    assert set(found) == {"one", "two", "clear", "empty", "shape", "broken"}
    assert [s.end for s in found["two"].subjects] == [7, 17]
    assert [s.mask.path.name for s in found["two"].subjects] == ["two.mask1.png", "two.mask2.png"]
    assert [[r.name for r in s.references] for s in found["two"].subjects] == [[], ["two.ref2.png", "two.ref2b.jpg"]]
    assert found["clear"].caption == "a photo of a robot and a man"
    assert [(s.end, s.mask.path.name) for s in found["clear"].subjects] == [(18, "clear.png")]
    reasons = {path.stem: reason for path, reason in reading.dropped}
    assert set(reasons) == {"wordless", "uncaptioned", "crowded", "opaque"}
    assert "no word for a subject" in reasons["wordless"]
    assert "uncaptioned.txt" in reasons["uncaptioned"]
    assert "2 masks, 1 words" in reasons["crowded"]
    assert "no mask" in reasons["opaque"]


def ffhq(root: Path) -> Path:
    (root / "00000").mkdir()
    (root / "image_ids_train.txt").write_text("00000001\n00000002\n00000003\n00000004\n")
    for name in ("00000001", "00000002", "00000004"):
        picture(root / "00000" / f"{name}.jpg")
    ids = np.zeros((48, 64), np.int64)
    ids[:, :20], ids[:, 40:] = 7, 9
    np.save(root / "00000" / "00000001.npy", ids)
    people = [
        {"id": 7, "bbox": [0, 0, 20, 48], "coco_label": "person", "end": 5},
        {"id": 8, "bbox": [0, 0, 1, 1], "coco_label": "dog", "end": 5},
        {"id": 9, "bbox": [40, 0, 64, 48], "coco_label": "person", "end": 17},
    ]
    record = {"caption": "a man and a woman", "segments": people}
    (root / "00000" / "00000001.json").write_text(json.dumps(record))
    (root / "00000" / "00000002.json").write_text(json.dumps({"caption": "a dog", "segments": people[1:2]}))
    (root / "00000" / "00000004.json").write_text("{")
    return root


def test_fastcomposers_layout_is_read_as_it_is(tmp_path: Path):
    assert is_fastcomposer(ffhq(tmp_path))
    reading = read_fastcomposer(tmp_path)
    (found,) = reading.pictures
    assert (found.caption, [s.end for s in found.subjects]) == ("a man and a woman", [5, 17])
    masks = read_masks(found, (48, 64))
    assert masks.shape == (2, 48, 64)
    assert masks[0, :, :20].all() and not masks[0, :, 20:].any()
    assert masks[1, :, 40:].all() and not masks[1, :, :40].any()
    assert {p.stem: r.split(" (")[0] for p, r in reading.dropped} == {
        "00000002": "nobody: no segment is labelled person, 'a dog'",
        "00000003": "missing file: 00000003.json",
        "00000004": "malformed json: 00000004.json",
    }


def test_buckets_have_equal_areas_and_pictures_go_to_the_nearest():
    shapes = buckets(512)
    assert (512, 512) in shapes and len(shapes) > 5
    assert all(h % 64 == w % 64 == 0 and abs(h * w / 512**2 - 1) < 0.1 for h, w in shapes)
    assert nearest((1000, 1000), shapes) == (512, 512)
    tall = nearest((1500, 1000), shapes)
    assert tall[0] > tall[1]
    assert buckets(128) == [(128, 128)] or all(h * w < 128**2 * 1.1 for h, w in buckets(128))


def test_framing_keeps_the_subject_in_the_picture():
    image, masks = torch.zeros(3, 100, 300), torch.zeros(1, 100, 300)
    masks[0, 20:80, 240:290] = 1
    image[0] = masks[0]
    framed, framed_masks = frame(image, masks, (64, 64))
    assert framed.shape == (3, 64, 64) and framed_masks.shape == (1, 64, 64)
    assert float(framed_masks.sum()) == pytest.approx(60 * 50 * 0.64**2, rel=0.05)
    assert (framed[0] - framed_masks[0]).abs().max() < 1e-5


@pytest.mark.parametrize("strength", ["fastcomposer", "gentle"])
def test_augmented_references_differ_and_can_be_repeated(strength: Strength):
    image, where = torch.zeros(3, 60, 40), torch.zeros(60, 40)
    image[1], where[10:50, 10:30] = 1, 1
    cutout = cut_out(image, where, 64)
    assert cutout.shape == (4, 64, 64)
    assert cutout[3].mean() == pytest.approx(0.5 / 1.1**2, abs=0.03)
    assert torch.equal(cutout[1], cutout[3]) and not cutout[0].any()
    views = [augment(cutout, 32, strength, generator_for(i)) for i in (0, 1, 0)]
    assert all(v.shape == (3, 32, 32) and v.min() >= 0 and v.max() <= 1 for v in views)
    assert torch.equal(views[0], views[2]) and not torch.equal(views[0], views[1])
    with pytest.raises(BadPicture, match="empty"):
        cut_out(image, torch.zeros(60, 40), 64)


class ToyEncoders:
    """Small, exact stand-ins for the models in front of the U-Net: what they give can be checked by hand."""

    fingerprint, scale, side = "toy", 8, 16

    def __init__(self) -> None:
        self.calls = 0

    def latents(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.nn.functional.avg_pool2d(images, self.scale)

    def text(self, caption: str, ends: Sequence[int]) -> Text:
        words = caption.split()
        context = torch.zeros(8, 4)
        context[: len(words), 0] = torch.tensor([float(len(w)) for w in words])
        return Text(context, torch.zeros(0), [len(caption[:end].split()) - 1 for end in ends])

    def features(self, references: Tensor) -> Tensor:
        return references.mean(dim=(2, 3))


SETTINGS = CacheSettings(side=64, views=3, augmentation="gentle")


def fill(root: Path, encoders: ToyEncoders, settings: CacheSettings = SETTINGS, cache: str = "cache") -> Cached:
    return build_cache(read_folder(root), encoders, settings, root.parent / cache, lambda done, all_of_them: None)


def test_cache_keeps_what_can_be_used_and_is_not_made_twice(folder: Path):
    encoders = ToyEncoders()
    cached = fill(folder, encoders)
    assert len(cached.entries) == 3
    reasons = {path.stem: reason for path, reason in cached.dropped}
    assert set(reasons) == {"wordless", "uncaptioned", "crowded", "opaque", "empty", "shape", "broken"}
    assert cached.report().startswith("3 pictures to train on, 7 left out\n")
    assert "empty" in reasons["empty"] and "64 × 64" in reasons["shape"] and "unreadable" in reasons["broken"]
    made = encoders.calls
    again = fill(folder, encoders)
    assert encoders.calls == made and again == cached
    (folder / "one.txt").write_text("a woman on a beach")
    fill(folder, encoders)
    assert encoders.calls > made
    fill(folder, encoders, replace(SETTINGS, side=128))
    assert len(list((folder.parent / "cache").glob("*.safetensors"))) == 3
    assert not list((folder.parent / "cache").glob("*.part"))


def test_a_folder_without_a_usable_picture_is_refused(tmp_path: Path):
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "a.jpg")
    with pytest.raises(ValueError, match="(?s)Nothing to train on. 0 pictures .*a.jpg: no caption: a.txt is not there"):
        fill(tmp_path / "in", ToyEncoders())


NULL = Text(torch.zeros(8, 4), torch.zeros(0), [])


def config(**options: object) -> TrainConfig:
    settings = {"steps": 1, "batch_size": 6, "appearance": 1.0, "uncondition": 0.0, **options}
    return TrainConfig(**settings)


@pytest.mark.parametrize("side", [None, 16], ids=["features", "pictures"])
def test_examples_bind_subjects_to_their_words(folder: Path, side: int | None):
    settings = SETTINGS if side is None else replace(SETTINGS, views=0)
    cached = fill(folder, ToyEncoders(), settings)
    settings = config()
    examples = CachedExamples(cached.entries, NULL, settings, "gentle", side)
    batch = examples(next(lots(0, settings, Alone())))
    assert batch.latents.shape == (6, 3, 8, 8) and batch.pooled is None
    assert batch.references.shape == ((6, 2, 3) if side is None else (6, 2, 3, 16, 16))
    rows = {tuple(row.tolist()) for row in batch.slots}
    assert rows == {(0, 1, 0, 0, 0, 0, 0, 0), (0, 1, 0, 0, 2, 0, 0, 0), (0, 0, 0, 0, 1, 0, 0, 0)}
    subjects = (batch.slots.max(dim=1).values[:, None] > torch.arange(2)).float()
    assert torch.equal((batch.masks.sum(dim=(2, 3)) > 0).float(), subjects)


def test_dropping_the_condition_keeps_the_mask(folder: Path):
    settings = config(uncondition=1.0)
    batch = CachedExamples(fill(folder, ToyEncoders()).entries, NULL, settings, "gentle", None)(
        next(lots(0, settings, Alone()))
    )
    assert not batch.context.any()
    assert (batch.slots[:, 0] == UNCONDITIONAL).all() and not batch.slots[:, 1:].any()
    assert (batch.masks.sum(dim=(1, 2, 3)) > 0).all()


def test_at_least_one_subject_is_always_given(folder: Path):
    settings = config(appearance=0.0, batch_size=30)
    batch = CachedExamples(fill(folder, ToyEncoders()).entries, NULL, settings, "gentle", None)(
        next(lots(0, settings, Alone()))
    )
    assert (batch.slots.max(dim=1).values == 1).all()


def test_an_epoch_shows_every_picture_once_and_batches_have_one_shape(folder: Path):
    entries = fill(folder, ToyEncoders()).entries
    many = [replace(e, row=r, shape=s) for e in entries for r in range(4) for s in ((64, 64), (32, 128))]
    order = Order(many, batch_size=4, seed=1)
    epoch = [order.batch(step) for step in range(order.length)]
    assert sorted(i for batch in epoch for i in batch) == list(range(len(many)))
    assert all(len({many[i].shape for i in batch}) == 1 for batch in epoch)
    later = [order.batch(order.length + step) for step in range(order.length)]
    assert later != epoch
    assert [Order(many, 4, 1).batch(step) for step in range(order.length)] == epoch
