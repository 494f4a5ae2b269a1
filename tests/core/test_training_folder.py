"""Pixels, masks, captions and names of a training folder, with the right value of each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_training_data import NULL, SETTINGS, ToyEncoders, config, mask, picture

from moa_attention.training.cache.building import build_cache
from moa_attention.training.data.captions import find_words, parse_caption, read_text
from moa_attention.training.data.examples import CachedExamples
from moa_attention.training.data.folder import read_folder
from moa_attention.training.data.framing import load_picture
from moa_attention.training.data.images import read_image, read_mask
from moa_attention.training.data.listing import folder_fingerprint
from moa_attention.training.data.pictures import BadPicture, MaskFile
from moa_attention.training.data.texts import CaptionTexts
from moa_attention.training.lots import lots
from moa_attention.training.workers import Alone

BOX = (8, 4, 24, 44)
COVER = 16 * 40 / (64 * 48)


def silhouette() -> Image.Image:
    pixels = np.zeros((48, 64), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return Image.fromarray(pixels)


def solid(value: int) -> Image.Image:
    return Image.new("L", (64, 48), value)


MASKS: dict[str, Callable[[Path], None]] = {
    "plain": lambda p: silhouette().save(p),
    "opaque alpha": lambda p: Image.merge("RGBA", [silhouette()] * 3 + [solid(255)]).save(p),
    "empty alpha": lambda p: Image.merge("LA", [silhouette(), solid(0)]).save(p),
    "unused transparent index": lambda p: silhouette().convert("P").save(p, transparency=77),
    "alpha": lambda p: Image.merge("RGBA", [solid(255)] * 3 + [silhouette()]).save(p),
    "transparent index": lambda p: silhouette().convert("P").save(p, transparency=0),
    "one bit": lambda p: silhouette().convert("1").save(p),
    "16 bits": lambda p: Image.fromarray(np.asarray(silhouette()).astype(np.uint16) * 257).save(p),
    "32 bits": lambda p: Image.fromarray(np.asarray(silhouette()).astype(np.int32) * 257).save(p, format="tiff"),
    "floats": lambda p: Image.fromarray(np.asarray(silhouette()).astype(np.float32) / 255).save(p, format="tiff"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_covers_what_it_shows_in_every_mode(tmp_path: Path, kind: str):
    MASKS[kind](tmp_path / "a.png")
    found = read_mask(MaskFile(tmp_path / "a.png"))
    assert float(found.mean()) == pytest.approx(COVER, abs=1e-6)
    assert torch.equal(found, torch.from_numpy(np.asarray(silhouette()) / np.float32(255)))


def test_deep_grey_keeps_its_tones_and_a_full_alpha_is_none(tmp_path: Path):
    tones = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(tones).save(tmp_path / "deep.png")
    found = read_image(tmp_path / "deep.png")
    assert found.shape == (3, 48, 64)
    assert (found.float() - torch.from_numpy(tones / 257).float()).abs().max() <= 0.51
    picture(tmp_path / "full.png", colour=(1, 2, 3, 255))
    assert len(read_image(tmp_path / "full.png")) == 3
    Image.fromarray(np.full((4, 4), 300.0, np.float32)).save(tmp_path / "bright.tiff")
    with pytest.raises(BadPicture, match="unreadable picture: bright.tiff .its values are 300 to 300, not 0 to 1"):
        read_image(tmp_path / "bright.tiff")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_the_first_frame_of_an_animation_is_read(tmp_path: Path, suffix: str):
    frames = [solid(250), solid(5)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(tmp_path / f"a{suffix}").float().mean() > 240


def test_tags_hold_words_for_one_person():
    assert find_words("1girl, 2boys, solo") == [5]
    assert find_words("old_man, 1_boy, woman_") == [7, 14, 21]
    assert find_words("manikin, 11girl, germany, girlfriend, 3man") == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_captions_are_read_in_every_unicode_encoding(tmp_path: Path, encoding: str):
    (tmp_path / "a.txt").write_bytes("a man named José\r\n\n  the   man again ".encode(encoding))
    found = [parse_caption(line, ["man"]) for line in CaptionTexts().read(tmp_path / "a.jpg", [tmp_path / "a.txt"])]
    assert [(c.text, c.ends) for c in found] == [("a man named José", (5,)), ("the man again", (7,))]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has no such permissions")
def test_a_caption_that_may_not_be_read_is_a_reason(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("a man")
    path.chmod(0)
    user = os.geteuid()
    try:
        os.seteuid(65534 if user == 0 else user)  # nothing keeps root from a file
        with pytest.raises(BadPicture, match="unreadable caption: a.txt .Permission denied"):
            read_text(path)
    finally:
        os.seteuid(user)


def folder_of(root: Path, *pictures: str, caption: str = "a man", masks: tuple[str, ...] = ("",)) -> Path:
    root.mkdir(exist_ok=True)
    for name in pictures:
        picture(root / name)
        stem = Path(name).stem
        (root / f"{stem}.txt").write_text(caption)
        for number in masks:
            mask(root / f"{stem}.mask{number}.png", BOX)
    return root


def test_a_mask_belongs_to_the_word_of_its_number(tmp_path: Path):
    root = folder_of(tmp_path / "in", "a.jpg", caption="a woman and a man and a boy", masks=("3", "2"))
    reading = read_folder(root)
    (found,) = reading.pictures
    assert found.captions[0].ends == (17, 27)
    assert [s.mask.path.name for s in found.subjects] == ["a.mask2.png", "a.mask3.png"]
    assert [w.text for w in reading.warnings] == ["subject without a mask: there is no mask1"]


def test_masks_of_ten_subjects_are_in_the_order_of_their_numbers(tmp_path: Path):
    root = folder_of(tmp_path / "in", "a.jpg", caption="a man " * 11, masks=tuple(str(n) for n in range(1, 12)))
    (found,) = read_folder(root).pictures
    assert [s.mask.path.name for s in found.subjects] == [f"a.mask{n}.png" for n in range(1, 12)]


def test_one_of_several_captions_is_drawn_each_time(tmp_path: Path):
    root = folder_of(tmp_path / "in", "a.jpg", caption="a man\nthere is a man\nnobody here\n")
    reading = read_folder(root)
    assert [c.text for c in reading.pictures[0].captions] == ["a man", "there is a man"]
    cached = build_cache(reading, ToyEncoders(), SETTINGS, tmp_path / "cache", lambda *_: None)
    settings = config(batch_size=40)
    batch = CachedExamples(cached.entries, NULL, settings, "gentle", None)(next(lots(0, settings, Alone())))
    words = {int(row.nonzero()) for row in batch.slots}
    assert words == {1, 3}, "the word of each caption"
    assert 10 < sum(int(row[1]) for row in batch.slots) < 30


def test_the_crop_must_hold_every_subject(tmp_path: Path):
    root = tmp_path / "in"
    root.mkdir()
    picture(root / "a.jpg", (400, 64))
    (root / "a.txt").write_text("a man and a woman")
    mask(root / "a.mask1.png", (0, 0, 20, 64), (400, 64))
    mask(root / "a.mask2.png", (380, 0, 400, 64), (400, 64))
    (found,) = read_folder(root).pictures
    with pytest.raises(BadPicture, match="subject outside the crop: subject 1"):
        load_picture(found, 64)
    (root / "a.mask2.png").unlink()
    (found,) = read_folder(root).pictures
    assert load_picture(found, 64).framed.crop == pytest.approx((0, 0, 64 / 400, 1))


def test_progress_counts_the_pictures_that_are_encoded(tmp_path: Path):
    """The encoders take three at a time."""
    root = folder_of(tmp_path / "in", *(f"{n}.jpg" for n in range(5)))
    seen: list[tuple[int, int]] = []
    build_cache(read_folder(root), ToyEncoders(), SETTINGS, tmp_path / "cache", lambda *now: seen.append(now))
    assert [done for done, _ in seen] == [0, 3, 5] and {total for _, total in seen} == {5}
    seen.clear()
    build_cache(read_folder(root), ToyEncoders(), SETTINGS, tmp_path / "cache", lambda *now: seen.append(now))
    assert seen == [(5, 5)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_are_cached_and_reported(tmp_path: Path):
    root = folder_of(tmp_path / "in", os.fsdecode(b"caf\xe9.jpg"), "line\nbreak.jpg")
    (root / os.fsdecode(b"b\xff.md")).write_text("")
    cached = build_cache(read_folder(root), ToyEncoders(), SETTINGS, tmp_path / "cache", lambda *_: None)
    report = str(cached.report())
    assert len(cached.entries) == 2
    assert report.encode().decode() == report and r"b\udcff.md: not read" in report
    assert (
        report.splitlines()[1] == "7 files: 6 belong to pictures to train on, 0 to pictures left out, 1 to no picture"
    )


def test_the_fingerprint_follows_captions_and_masks_and_nothing_else(tmp_path: Path):
    root = folder_of(tmp_path / "in", "a.jpg")
    before = folder_fingerprint(root)
    for name in ("notes.md", ".hidden.txt"):
        (root / name).write_text("a woman")
    assert folder_fingerprint(root) == before
    (root / "a.txt").write_text("a woman")
    assert folder_fingerprint(root) != before
