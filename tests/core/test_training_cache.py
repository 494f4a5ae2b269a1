"""A cache that several threads and processes fill: the same bits, the others' shards kept, and no process waits in vain."""

import hashlib
import itertools
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training_data import SETTINGS, ToyEncoders, mask, picture
from torch import Tensor

from moa_attention.training.cache import shards as shard_files
from moa_attention.training.cache import sharing
from moa_attention.training.cache.building import build_cache
from moa_attention.training.cache.entries import CachedPictures
from moa_attention.training.cache.preparing import in_threads
from moa_attention.training.cache.sharing import CacheShare, LostProcess
from moa_attention.training.data.folder import read_folder

PICTURES = 11
SHAPES = [(64, 48), (48, 64), (64, 64)]


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven pictures of three shapes, one of them broken, in shards of at most three."""
    monkeypatch.setattr(shard_files, "SHARD", 3)
    monkeypatch.setattr(sharing, "EVERY", 0.01)
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(PICTURES):
        size = SHAPES[number % 3]
        picture(root / f"{number}.jpg", size, (20 * number, 200 - 9 * number, 60))
        mask(root / f"{number}.mask1.png", (8, 8, 30, 40), size)
        (root / f"{number}.txt").write_text("a man on a beach")
    (root / "5.jpg").write_bytes(b"no picture at all")
    return root


def build(root: Path, cache: str, threads: int = 0, ranks: int = 1) -> list[CachedPictures]:
    """As every process sees it."""

    def part(rank: int) -> CachedPictures:
        share = CacheShare(rank, ranks, "a run", patience=20)
        return build_cache(
            read_folder(root), ToyEncoders(), SETTINGS, root.parent / cache, lambda *_: None, threads, share
        )

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(part, range(ranks)))


def files(root: Path, cache: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root.parent / cache).glob("*.safetensors")}


@pytest.mark.parametrize(("threads", "ranks"), [(1, 1), (2, 1), (0, 2), (2, 2), (1, 3)])
def test_threads_and_processes_change_no_bit_of_the_cache(many: Path, threads: int, ranks: int):
    (alone,) = build(many, "alone")
    shared = build(many, "shared", threads, ranks)
    assert len(files(many, "alone")) >= 4 and len(alone.entries) == PICTURES - 1
    assert files(many, "shared") == files(many, "alone")
    for seen in shared:
        assert [(e.file.name, e.row, e.shape) for e in seen.entries] == [
            (e.file.name, e.row, e.shape) for e in alone.entries
        ]
        assert seen.folder == alone.folder, "every process knows what all have left out"


def test_a_new_picture_keeps_all_other_shards_and_the_manifest_lists_them(many: Path):
    build(many, "cache")
    before = {path.name: path.stat().st_mtime_ns for path in (many.parent / "cache").glob("*.safetensors")}
    shutil.copy(many / "1.jpg", many / "new.jpg")
    shutil.copy(many / "1.mask1.png", many / "new.mask1.png")
    (many / "new.txt").write_text("a woman")
    build(many, "cache", threads=2, ranks=2)
    after = {path.name: path.stat().st_mtime_ns for path in (many.parent / "cache").glob("*.safetensors")}
    assert 1 <= len(after.keys() - before.keys()) <= 2 and len(before.keys() - after.keys()) == 1
    assert all(after[name] == before[name] for name in after.keys() & before.keys())
    manifest = json.loads((many.parent / "cache" / "manifest.json").read_text())
    assert manifest["pictures"] == PICTURES + 1 and manifest["encoders"] == "toy"
    for name, content in files(many, "cache").items():
        assert manifest["shards"][name]["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["shards"].keys() == files(many, "cache").keys()


def test_a_copied_cache_is_kept_and_a_flipped_bit_in_it_is_found(many: Path, caplog: pytest.LogCaptureFixture):
    build(many, "cache")
    first = files(many, "cache")
    for path in (many.parent / "cache").glob("*.safetensors"):
        os.utime(path)  # as a copy without its times
    changed = min(first)
    content = bytearray(first[changed])
    content[-3] ^= 16
    (many.parent / "cache" / changed).write_bytes(content)
    encoders = ToyEncoders()
    build_cache(read_folder(many), encoders, SETTINGS, many.parent / "cache", lambda *_: None)
    assert files(many, "cache") == first
    assert caplog.text.count("is cut or damaged; its pictures are encoded again.") == 1
    entries = len([name for name in load_file(many.parent / "cache" / changed) if name.endswith("latents")])
    assert 1 <= encoders.calls <= entries, "only the pictures of that shard"


def test_progress_counts_the_pictures_of_all_processes(many: Path):
    seen: list[tuple[int, int]] = []

    def part(rank: int) -> None:
        progress = (lambda *now: seen.append(now)) if rank == 0 else lambda *_: None
        share = CacheShare(rank, 2, "a run", patience=20)
        build_cache(read_folder(many), ToyEncoders(), SETTINGS, many.parent / "cache", progress, 1, share)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(part, range(2)))
    assert {total for _, total in seen} == {PICTURES} and seen[-1][0] == PICTURES
    assert all(a <= b for (a, _), (b, _) in itertools.pairwise(seen))


def test_progress_counts_pictures_that_are_encoded(many: Path):
    class Watched(ToyEncoders):
        encoded = 0

        def latents(self, images: Tensor) -> Tensor:
            self.encoded += len(images)
            return super().latents(images)

    encoders, seen = Watched(), list[tuple[int, int]]()
    build_cache(
        read_folder(many),
        encoders,
        SETTINGS,
        many.parent / "cache",
        lambda done, _: seen.append((done, encoders.encoded)),
    )
    assert (seen[0], seen[-1][0]) == ((0, 0), PICTURES) and len(seen) > 3
    broken = PICTURES - encoders.encoded
    assert broken < encoders.batch and all(done <= encoded + broken for done, encoded in seen)


def test_a_process_that_is_lost_ends_the_others_with_a_sentence(many: Path):
    def fill(share: CacheShare, encoders: ToyEncoders) -> None:
        build_cache(read_folder(many), encoders, SETTINGS, many.parent / "cache", lambda *_: None, 1, share)

    with pytest.raises(LostProcess, match="^Process 1 has not advanced in its part of the cache for 0.005 minutes. It"):
        fill(CacheShare(0, 2, "first run", patience=0.3), ToyEncoders())

    class Broken(ToyEncoders):
        def latents(self, images: Tensor) -> Tensor:
            raise OSError("no room on the disk")

    with pytest.raises(OSError, match="no room"):
        fill(CacheShare(1, 2, "second run"), Broken())
    with pytest.raises(LostProcess, match="^Process 1 could not fill its part of the cache: no room on the disk$"):
        fill(CacheShare(0, 2, "second run"), ToyEncoders())


def test_threads_keep_the_order_and_leave_pytorchs_threads_as_they_were():
    before = torch.get_num_threads()
    squares = in_threads(lambda n: n * n, range(50), 3)
    assert next(squares) == (0, 0)
    assert [pair for pair in squares] == [(n, n * n) for n in range(1, 50)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda n: 1 // n, [1, 0, 2], 2))
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before
