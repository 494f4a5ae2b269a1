"""Several folders as one: captions from other sources, triggers, shuffled tags, repeats, weights, archives."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training_data import NULL, SETTINGS, ToyEncoders, config, mask, picture
from toy import draw, one_lot, setup

from moa_attention.training.cache.building import build_cache
from moa_attention.training.config import TrainConfig
from moa_attention.training.data.examples import BatchOrder, CachedExamples
from moa_attention.training.data.pictures import Caption, PictureFolder, TrainingPicture
from moa_attention.training.datasets.archives import extracted
from moa_attention.training.datasets.config import DatasetConfig
from moa_attention.training.datasets.reading import check_dataset, read_datasets
from moa_attention.training.datasets.tags import shuffled
from moa_attention.training.lots import generator_for, lots
from moa_attention.training.objective import Objective
from moa_attention.training.workers import Alone

CAPTION = "a man on a beach"


def folder(root: Path, names: str = "ab", caption: str = CAPTION) -> Path:
    """Pictures with a mask, and captions beside them unless `caption` is empty."""
    root.mkdir()
    for name in names:
        picture(root / f"{name}.jpg")
        mask(root / f"{name}.png", (10, 10, 30, 40))
        if caption:
            (root / f"{name}.txt").write_text(caption)
    return root


def dataset(root: Path, **options: object) -> DatasetConfig:
    return replace(DatasetConfig(str(root), "CC0-1.0"), **options)  # type: ignore[arg-type]


def texts(found: PictureFolder) -> dict[str, list[str]]:
    return {p.path.stem: [c.text for c in p.captions] for p in found.pictures}


def words(caption: Caption) -> list[str]:
    """The word of each subject."""
    return [caption.text[:end].split()[-1] for end in caption.ends]


def test_folders_are_one_and_every_file_is_accounted_for(tmp_path: Path):
    first, second = folder(tmp_path / "first"), folder(tmp_path / "second", "cde", "a woman")
    (second / "notes.pdf").write_text("x")
    (second / "d.png").unlink()
    found = read_datasets([dataset(first, repeats=3), dataset(second, weight=0.5)])
    assert [(p.path.name, p.repeats, p.weight) for p in found.pictures] == [
        ("a.jpg", 3, 1.0), ("b.jpg", 3, 1.0), ("c.jpg", 1, 0.5), ("e.jpg", 1, 0.5)
    ]  # fmt: skip
    report = str(found.report(4))
    assert "15 files: 12 belong to pictures to train on, 2 to pictures left out, 1 to no picture" in report
    assert f"{second / 'd.jpg'}: no mask" in report


def write_jsonl(root: Path) -> str:
    rows = [{"file_name": "a.jpg", "text": ["a man", "the man"]}, {"file_name": "b.jpg", "text": "a boy"}]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "metadata.jsonl"


def write_csv(root: Path) -> str:
    (root / "m.csv").write_text('file_name,text\na.jpg,"a man\nthe man"\nb.jpg,a boy\n', encoding="utf-8-sig")
    return "m.csv"


def write_parquet(root: Path) -> str:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    columns = {"file_name": ["a.jpg", "b.jpg"], "text": ["a man\nthe man", "a boy"]}
    parquet.write_table(pyarrow.table(columns), root / "m.parquet")
    return "m.parquet"


def write_sidecars(root: Path) -> str:
    (root / "a.json").write_text(json.dumps({"text": ["a man", "the man"], "score": 3}))
    (root / "b.json").write_text(json.dumps({"text": "a boy"}))
    return ".json"


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet, write_sidecars])
def test_captions_come_from_a_column(tmp_path: Path, write: Callable[[Path], str]):
    root = folder(tmp_path / "p", caption="")
    found = read_datasets([dataset(root, captions=write(root))])
    assert texts(found) == {"a": ["a man", "the man"], "b": ["a boy"]}
    assert not found.unused and not found.dropped


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "file_name,caption\na.jpg,a man\n",
            r"m\.csv cannot be used: row 1 lacks the column 'file_name' or 'text'; it has",
        ),
        (b"\xff\xff\xff", r"m\.csv cannot be used: .*utf-8"),
        (None, r"There is no metadata file .*m\.csv, which 'captions' names"),
    ],
)
def test_a_metadata_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | bytes | None, message: str):
    root = folder(tmp_path / "p", caption="")
    if content is not None:
        (root / "m.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        check_dataset(dataset(root, captions="m.csv"))


def test_a_picture_without_a_row_or_with_an_odd_field_is_left_out_with_the_reason(tmp_path: Path):
    root = folder(tmp_path / "p", "ab", caption="")
    (root / "m.csv").write_text("file_name,text\na.jpg,a man\n")
    found = read_datasets([dataset(root, captions="m.csv")])
    assert [r.text for r in found.dropped] == ["no caption: m.csv has no row for the picture"]
    (root / "a.json").write_text('{"text": 5}')
    reasons = [r.text for r in read_datasets([dataset(root, captions=".json")]).dropped]
    assert reasons[0].startswith("malformed json: a.json has no text in 'text'")
    assert reasons[1] == "no caption: b.json does not exist"


def test_a_trigger_stands_before_every_caption_and_may_be_the_subject(tmp_path: Path):
    root = folder(tmp_path / "p", "a")
    for trigger, subjects in {"photo": ["man"], "sks woman": ["woman,", "man"], "sks<|image|>": ["sks"]}.items():
        (made,) = read_datasets([dataset(root, trigger=trigger)]).pictures
        (caption,) = made.captions
        assert caption.text == f"{trigger.removesuffix('<|image|>')}, {CAPTION}"
        expected = [s.rstrip(",") for s in subjects[:1]]
        assert words(caption) == expected, "one mask: one subject"


def test_words_of_a_folder_replace_those_of_the_run(tmp_path: Path):
    root = folder(tmp_path / "p", "a", "a man with a teapot")
    (made,) = read_datasets([dataset(root, words=("teapot",))], ["man"]).pictures
    assert words(made.captions[0]) == ["teapot"]


def test_shuffled_tags_keep_every_subject_at_its_word():
    caption = Caption("sks, 1girl,  red hat,old man, beach, rain", (10, 28))
    assert words(caption) == ["1girl", "man"]
    seen = set()
    for number in range(60):
        made = shuffled(caption, 1, 0.5, generator_for(number))
        tags = made.text.split(", ")
        assert words(made) == ["1girl", "man"] and tags[0] == "sks" and len(set(tags)) == len(tags)
        assert {"1girl", "old man"} <= set(tags) <= {"sks", "1girl", "red hat", "old man", "beach", "rain"}
        seen.add(made.text)
    assert len(seen) > 30
    kept = sum(shuffled(caption, 1, 0.25, generator_for(n)).text.count("beach") for n in range(400))
    assert 260 < kept < 340, "three quarters of 400"


def test_versions_are_the_same_in_every_run_and_replace_the_caption(tmp_path: Path):
    root = folder(tmp_path / "p", "a", "a man, hat, rain, sun")
    wanted = dataset(root, trigger="sks", shuffles=6, tag_dropout=0.2)
    first, second = (read_datasets([wanted]).pictures for _ in range(2))
    assert first == second and len(first[0].captions) == 6
    assert all(c.text.startswith("sks, ") and words(c) == ["man"] for c in first[0].captions)
    cached = build_cache(read_datasets([wanted]), ToyEncoders(), SETTINGS, tmp_path / "cache", lambda *_: None)
    assert cached.entries[0].captions == 6


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path):
    root = folder(tmp_path / "p")
    with pytest.raises(ValueError, match="tag_dropout leaves out tags of the versions that 'shuffles' makes"):
        dataset(root, tag_dropout=0.1)
    with pytest.raises(ValueError, match="captions is '.yaml' and must be '.txt', '.json', or"):
        dataset(root, captions=".yaml")
    (root / "inside").mkdir()
    with pytest.raises(ValueError, match="contain the same pictures. Name every folder once"):
        read_datasets([dataset(root), dataset(root / "inside")])


def cached(found: PictureFolder, tmp_path: Path) -> CachedExamples:
    made = build_cache(found, ToyEncoders(), SETTINGS, tmp_path / "cache", lambda *_: None)
    return CachedExamples(made.entries, NULL, config(batch_size=5), "gentle", None)


def test_repeats_show_pictures_more_often(tmp_path: Path):
    found = read_datasets([dataset(folder(tmp_path / "one", "a"), repeats=3), dataset(folder(tmp_path / "two", "bc"))])
    examples = cached(found, tmp_path)
    order = BatchOrder(examples.entries, 5, seed=0)
    shown = Counter(Path(name_of(examples, i)).stem for step in range(7) for i in order.batch(step))
    assert shown == {"a": 21, "b": 7, "c": 7}


def name_of(examples: CachedExamples, index: int) -> str:
    made = examples.entries[index].picture
    assert isinstance(made, TrainingPicture)
    return made.path.name


def test_weights_travel_with_the_batch(tmp_path: Path):
    one, two = folder(tmp_path / "one", "a"), folder(tmp_path / "two", "b")
    examples = cached(read_datasets([dataset(one), dataset(two, weight=0.25)]), tmp_path)
    (lot,) = lots(0, examples.config, Alone())
    expected = [
        0.25 if entry.picture is not None and entry.picture.path.stem == "b" else 1
        for entry in examples.entries_of(lot)
    ]
    weights = examples(lot).weights
    assert weights is not None and weights.tolist() == expected and len(set(expected)) == 2
    plain = cached(read_datasets([dataset(one), dataset(two)]), tmp_path)
    assert plain(lot).weights is None


def test_a_weight_is_a_factor_of_every_loss_of_its_example():
    adapter, base = setup()
    lot = one_lot()
    batch, settings = draw(lot), TrainConfig(steps=1, precision="float32", consistency_weight=1.0)
    objective = Objective(adapter, base, settings)
    base.sigma_at = lambda share: torch.ones(len(share))
    base.add_noise = lambda latents, noise, sigma: latents

    def loss(weights: list[float]) -> dict[str, torch.Tensor]:
        return objective(replace(batch, weights=torch.tensor(weights)), lot.generators)[1]

    count = len(batch.latents)
    alone = [loss([float(n == row) for n in range(count)]) for row in range(count)]
    mixed = loss([2.0] + [0.5] * (count - 1))
    for name in ("reconstruction", "router", "object", "consistency"):
        expected = 2 * alone[0][name] + 0.5 * sum(each[name] for each in alone[1:])
        torch.testing.assert_close(mixed[name], expected)
        torch.testing.assert_close(loss([1.0] * count)[name], objective(batch, lot.generators)[1][name])


def archive(root: Path, source: Path, name: str) -> Path:
    root.mkdir(exist_ok=True)
    with tarfile.open(root / name, "w") as made:
        for path in sorted(source.iterdir()):
            made.add(path, path.name)
    return root


def test_archives_are_extracted_once_and_read_like_a_folder(tmp_path: Path):
    shards = archive(tmp_path / "shards", folder(tmp_path / "one"), "000.tar")
    archive(shards, folder(tmp_path / "two", "a"), "001.tar")
    target = extracted(shards, tmp_path / "out")
    found = read_datasets([dataset(target)])
    assert sorted(p.path.name for p in found.pictures) == ["a.jpg", "a.jpg", "b.jpg"] and found.files == 9
    (found.pictures[0].path).with_suffix(".mask1.png").write_bytes(b"kept")
    before = sorted(target.rglob("*"))
    assert extracted(shards, tmp_path / "out") == target and sorted(target.rglob("*")) == before
    assert extracted(tmp_path / "one", tmp_path / "out") == tmp_path / "one", "no archive"
    archive(shards, tmp_path / "one", "001.tar")
    with pytest.raises(ValueError, match=r"001\.tar has changed since it was extracted. Delete .*001-"):
        extracted(shards, tmp_path / "out")


def test_an_archive_that_leads_out_or_is_cut_is_refused_and_leaves_nothing(tmp_path: Path):
    source = folder(tmp_path / "one")
    root = tmp_path / "shards"
    root.mkdir()
    with tarfile.open(root / "evil.tar", "w") as made:
        made.add(source / "a.jpg", "../outside.jpg")
    with pytest.raises(ValueError, match=r"evil\.tar cannot be extracted: .*outside"):
        extracted(root, tmp_path / "out")
    (root / "evil.tar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"evil\.tar cannot be extracted"):
        extracted(root, tmp_path / "out")
    assert not list((tmp_path / "out" / "shards").iterdir()) and not (tmp_path / "out" / "outside.jpg").exists()
