"""Training data: what is read from a folder, what is left out and why, how it is framed, cached and drawn from."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file
from torch import Tensor

from moa_attention.training.cache.building import build_cache
from moa_attention.training.cache.entries import CachedPictures, CacheEntry, CacheSettings
from moa_attention.training.cache.shards import SHARD, shards
from moa_attention.training.config import Augmentation, TrainConfig
from moa_attention.training.data.augment import augment, cut_out
from moa_attention.training.data.captions import find_words, take_marks
from moa_attention.training.data.encoders import EncodedCaption
from moa_attention.training.data.examples import UNCONDITIONAL, BatchOrder, CachedExamples
from moa_attention.training.data.fastcomposer import is_fastcomposer, read_fastcomposer
from moa_attention.training.data.folder import read_folder
from moa_attention.training.data.framing import buckets, frame, nearest_shape
from moa_attention.training.data.images import read_image, read_masks
from moa_attention.training.data.pictures import BadPicture, TrainingPicture
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


def by_name(pictures: Sequence[TrainingPicture]) -> dict[str, TrainingPicture]:
    return {p.path.stem: p for p in pictures}


def test_words_and_marks():
    assert find_words("A woman and two men, a Man") == [7, 26]
    assert find_words("a talking teapot", ["teapot"]) == [16]
    assert take_marks("a man <|image|> and a dog<|image|> play") == ("a man and a dog play", [5, 15])
    assert take_marks("a man") == ("a man", [])


def test_folder_is_read_and_reports_what_it_left_out(folder: Path):
    reading = read_folder(folder)
    found = by_name(reading.pictures)
    assert set(found) == {"one", "two", "clear", "empty", "shape", "broken"}
    assert found["two"].captions[0].ends == (7, 17)
    assert [s.mask.path.name for s in found["two"].subjects] == ["two.mask1.png", "two.mask2.png"]
    assert [[r.name for r in s.references] for s in found["two"].subjects] == [[], ["two.ref2.png", "two.ref2b.jpg"]]
    assert found["clear"].captions[0].text == "a photo of a robot and a man"
    assert found["clear"].captions[0].ends == (18,)
    assert [s.mask.path.name for s in found["clear"].subjects] == ["clear.png"]
    reasons = {remark.path.stem: remark.text for remark in reading.dropped}
    assert set(reasons) == {"wordless", "uncaptioned", "crowded", "opaque"}
    assert "no word for a subject" in reasons["wordless"]
    assert "uncaptioned.txt" in reasons["uncaptioned"]
    assert "a mask of subject 2, but 1 words" in reasons["crowded"]
    assert "no mask" in reasons["opaque"]


def ffhq(root: Path) -> Path:
    (root / "00000").mkdir(parents=True)
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
    assert [(c.text, c.ends) for c in found.captions] == [("a man and a woman", (5, 17))]
    masks = read_masks(found, (48, 64))
    assert masks.shape == (2, 48, 64)
    assert masks[0, :, :20].all() and not masks[0, :, 20:].any()
    assert masks[1, :, 40:].all() and not masks[1, :, :40].any()
    assert {remark.path.stem: remark.text.split(" (")[0] for remark in reading.dropped} == {
        "00000002": "no person: no segment has the label 'person', caption 'a dog'",
        "00000003": "missing file: 00000003.json",
        "00000004": "malformed json: 00000004.json",
    }


@pytest.mark.parametrize("kind", ["absolute", "parent", "link"])
def test_a_listed_path_outside_the_folder_is_not_followed(tmp_path: Path, kind: str):
    outside = ffhq(tmp_path / "outside")
    root = ffhq(tmp_path / "inside")
    stolen = outside / "00000" / "00000001"
    if kind == "link":
        name = "00000009"
        for suffix in (".jpg", ".npy", ".json"):
            (root / "00000" / f"{name}{suffix}").symlink_to(stolen.with_suffix(suffix))
    else:
        above = Path("../..") / stolen.relative_to(
            tmp_path.parents[2]
        )  # from `inside/../..`, where its first letters lead
        name = str(stolen if kind == "absolute" else above)
        assert (root / name[:5] / f"{name}.jpg").is_file()
    (root / "image_ids_train.txt").write_text(f"{name} 00000001")
    reading = read_fastcomposer(root)
    assert [p.path.name for p in reading.pictures] == ["00000001.jpg"]
    assert [remark.text for remark in reading.dropped] == [
        f"missing file: {Path(name).name}.json (not an ordinary file in the folder)"
    ]


@pytest.mark.parametrize(
    "record",
    ["[]", "[" * 10_000, '{"caption": 3, "segments": []}', '{"caption": "a", "segments": [{"coco_label": "person", "end": 99, "id": 1}]}',
     '{"caption": "a man", "segments": [{"coco_label": "person", "end": 1e999, "id": 1}]}',
     '{"caption": "a man", "segments": [{"coco_label": "person", "end": -3, "id": 1}]}', '{"caption": "a", "segments": 5}'],
)  # fmt: skip
def test_a_malformed_record_is_a_remark(tmp_path: Path, record: str):
    root = ffhq(tmp_path)
    (root / "00000" / "00000001.json").write_text(record)
    reading = read_fastcomposer(root)
    assert not reading.pictures
    assert [r.text.split(" (")[0] for r in reading.dropped if r.path.stem == "00000001"] == [
        "malformed json: 00000001.json"
    ]


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path):
    Image.new("L", (100_000, 1_001)).save(tmp_path / "wide.png")
    with pytest.raises(
        BadPicture, match=r"^unreadable picture: wide.png \(100000 × 1001 pixels; at most 100,000,000 pixels"
    ):
        read_image(tmp_path / "wide.png")


@pytest.mark.parametrize("content", ["torn", "claims", "words", "flat"])
def test_a_damaged_segmentation_is_a_bad_picture(tmp_path: Path, content: str):
    (found,) = read_fastcomposer(ffhq(tmp_path)).pictures
    path = found.subjects[0].mask.path
    if content == "torn":
        path.write_bytes(path.read_bytes()[:40])
    elif content == "claims":
        header = path.read_bytes()
        assert b"(48, 64)" in header
        path.write_bytes(header.replace(b"(48, 64), }        ", b"(480000, 640000), }"))
    else:
        np.save(path, np.array([["a"]]) if content == "words" else np.zeros(5, np.int32))
    with pytest.raises(BadPicture, match=f"^unreadable segmentation: {path.name} "):
        read_masks(found, (48, 64))


def test_buckets_have_equal_areas_and_pictures_go_to_the_nearest():
    shapes = buckets(512)
    assert (512, 512) in shapes and len(shapes) > 5
    assert all(h % 64 == w % 64 == 0 and abs(h * w / 512**2 - 1) < 0.1 for h, w in shapes)
    assert nearest_shape((1000, 1000), shapes) == (512, 512)
    tall = nearest_shape((1500, 1000), shapes)
    assert tall[0] > tall[1]
    assert buckets(128) == [(128, 128)] or all(h * w < 128**2 * 1.1 for h, w in buckets(128))


def test_framing_keeps_the_subject_in_the_picture():
    image, masks = torch.zeros(3, 100, 300, dtype=torch.uint8), torch.zeros(1, 100, 300)
    masks[0, 20:80, 240:290] = 1
    image[0] = 255 * masks[0]
    framed, framed_masks, crop = frame(image, masks, (64, 64))
    assert framed.shape == (3, 64, 64) and framed_masks.shape == (1, 64, 64)
    assert float(framed_masks.sum()) == pytest.approx(60 * 50 * 0.64**2, rel=0.05)
    assert (framed[0] - framed_masks[0]).abs().max() < 1e-5
    assert crop == pytest.approx((2 / 3, 0, 1, 1), abs=1e-6)


@pytest.mark.parametrize("strength", ["fastcomposer", "gentle"])
def test_augmented_references_differ_and_can_be_repeated(strength: Augmentation):
    image, where = torch.zeros(3, 60, 40, dtype=torch.uint8), torch.zeros(60, 40)
    image[1], where[10:50, 10:30] = 255, 1
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

    fingerprint, scale, side, batch = "toy", 8, 16, 3

    def __init__(self) -> None:
        self.calls = 0

    def latents(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.nn.functional.avg_pool2d(images, self.scale)

    def text(self, caption: str, ends: Sequence[int]) -> EncodedCaption:
        words = caption.split()
        context = torch.zeros(8, 4)
        context[: len(words), 0] = torch.tensor([float(len(w)) for w in words])
        return EncodedCaption(context, torch.zeros(0), [len(caption[:end].split()) - 1 for end in ends])

    def features(self, references: Tensor) -> Tensor:
        return references.mean(dim=(2, 3))


SETTINGS = CacheSettings(side=64, views=3, augmentation="gentle")


def fill(root: Path, encoders: ToyEncoders, settings: CacheSettings = SETTINGS, cache: str = "cache") -> CachedPictures:
    return build_cache(read_folder(root), encoders, settings, root.parent / cache, lambda done, all_of_them: None)


def test_cache_keeps_what_can_be_used_and_is_not_made_twice(folder: Path):
    encoders = ToyEncoders()
    cached = fill(folder, encoders)
    assert len(cached.entries) == 3
    reasons = {remark.path.stem: remark.text for remark in cached.folder.dropped}
    assert set(reasons) == {"wordless", "uncaptioned", "crowded", "opaque", "empty", "shape", "broken"}
    assert cached.report().summary[0] == "3 pictures to train on, 7 left out"
    assert "empty" in reasons["empty"] and "64 × 64" in reasons["shape"] and "unreadable" in reasons["broken"]
    made = encoders.calls
    again = fill(folder, encoders)
    assert encoders.calls == made and again == cached
    (folder / "one.txt").write_text("a woman on a beach")
    fill(folder, encoders)
    assert encoders.calls > made
    (folder.parent / "cache" / "killed.safetensors.part").touch()
    fill(folder, encoders, replace(SETTINGS, side=128))
    left = [path.suffix for path in (folder.parent / "cache").iterdir()]
    assert sorted(left) == [".json", ".safetensors"], "former shards and what was begun are removed"


def test_a_damaged_shard_is_made_again(folder: Path, caplog: pytest.LogCaptureFixture):
    encoders = ToyEncoders()
    cached = fill(folder, encoders)
    shard, made = cached.entries[0].file, encoders.calls
    content = shard.read_bytes()
    for damaged in (content[:-7], content[:100], b""):
        shard.write_bytes(damaged)
        assert fill(folder, encoders) == cached
        assert load_file(shard).keys() == load(content).keys()
    assert encoders.calls == 4 * made
    assert caplog.text.count(f"'{shard}' is cut or damaged; its pictures are encoded again.") == 3


def bare(path: str) -> TrainingPicture:
    return TrainingPicture(Path(path), Path(path).with_suffix(".txt"), (), ())


def test_a_change_touches_only_the_shard_of_its_picture():
    """Also at the sizes at which the number of shards grows: 64 pictures, 128, 256 ..."""

    def groups(count: int) -> set[tuple[str, ...]]:
        pictures = [bare(f"folder/{number:05}.jpg") for number in range(count)]
        made = [tuple(p.path.name for p in group) for group in shards(pictures)]
        assert sorted(name for group in made for name in group) == [p.path.name for p in pictures]
        assert all(0 < len(group) <= SHARD for group in made)
        return set(made)

    before = groups(1)
    for count in (64, 65, 128, 129, 512, 513, 1024, 1025, 4096, 4097):
        after = groups(count)
        if count % 2:
            changed = before - after
            assert len(changed) == 1 and len(after - before) <= 2, "one shard changes, or is divided"
        before = after
    names = [bare(f"{number}/same.jpg") for number in range(300)]
    assert max(len(group) for group in shards(names)) <= SHARD


def test_a_folder_without_a_usable_picture_is_refused(tmp_path: Path):
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "a.jpg")
    with pytest.raises(
        ValueError, match="(?s)Nothing to train on. 0 pictures .*a.jpg: no caption: a.txt does not exist"
    ):
        fill(tmp_path / "in", ToyEncoders())


NULL = EncodedCaption(torch.zeros(8, 4), torch.zeros(0), [])


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


def shaped(folder: Path, *counts: int) -> list[CacheEntry]:
    """Entries of as many shapes as there are numbers, as many of each as its number."""
    entry = fill(folder, ToyEncoders()).entries[0]
    return [replace(entry, row=row, shape=(64, 64 + s)) for s, count in enumerate(counts) for row in range(count)]


def test_an_epoch_shows_every_picture_once_and_batches_have_one_shape(folder: Path):
    many = shaped(folder, 12, 8)
    order = BatchOrder(many, batch_size=4, seed=1)
    epoch = [order.batch(step) for step in range(5)]
    assert sorted(i for batch in epoch for i in batch) == list(range(len(many)))
    assert all(len({many[i].shape for i in batch}) == 1 for batch in epoch)
    later = [order.batch(5 + step) for step in range(5)]
    assert later != epoch
    assert [BatchOrder(many, 4, 1).batch(step) for step in range(5)] == epoch
    assert epoch == former_epoch(many, 4, 1, 0) and later == former_epoch(many, 4, 1, 1), "the same bits as before"


def former_epoch(entries: list[CacheEntry], size: int, seed: int, epoch: int) -> list[list[int]]:
    """An epoch of shapes that fill whole batches: each shape's pictures mixed, cut, and the batches mixed."""
    generator, batches = generator_for(seed, "epoch", epoch), []
    for shape in dict.fromkeys(e.shape for e in entries):
        indices = [i for i, e in enumerate(entries) if e.shape == shape]
        mixed = [indices[i] for i in torch.randperm(len(indices), generator=generator).tolist()]
        batches += [mixed[start : start + size] for start in range(0, len(mixed), size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def test_every_picture_is_shown_equally_often_whatever_its_shape(folder: Path):
    """A shape of one picture filled a batch in every epoch before: 16 times as often as the others."""
    many = shaped(folder, 40, 1, 7, 16)
    order, shown = BatchOrder(many, batch_size=16, seed=3), [0] * 64
    first: list[int] = []
    for step in range(400):
        batch = order.batch(step)
        assert len(batch) == 16 and len({many[i].shape for i in batch}) == 1
        for i in batch:
            shown[i] += 1
        first.append(step) if 40 in batch else None
    assert 400 * 16 / 64 == 100
    assert all(84 <= count <= 116 for count in shown), shown
    assert max(b - a for a, b in itertools.pairwise(first)) < 90, "the single picture has a batch in every 16 epochs"
    again = BatchOrder(many, batch_size=16, seed=3)
    assert [again.batch(step) for step in (399, 7, 200)] == [order.batch(step) for step in (399, 7, 200)]


def test_the_first_epochs_already_favour_no_shape(folder: Path):
    """Over many seeds the share of each shape in the first steps is that of its pictures."""
    many = shaped(folder, 30, 10, 1)
    count, shown = 300, [0, 0, 0]
    for seed in range(count):
        order = BatchOrder(many, batch_size=16, seed=seed)
        for step in range(5):
            shown[many[order.batch(step)[0]].shape[1] - 64] += 1
    shares = [number / (5 * count) for number in shown]
    assert shares == pytest.approx([30 / 41, 10 / 41, 1 / 41], abs=0.03)
