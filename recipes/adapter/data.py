"""The pictures of a run, encoded, with a report on those that are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ...moa_attention.training.cache.entries import CachedPictures
from ...moa_attention.training.cache.sharing import CacheShare
from ...moa_attention.training.data.pictures import PictureFolder
from ...moa_attention.training.datasets.archives import extracted
from ...moa_attention.training.datasets.config import DatasetConfig
from ...moa_attention.training.datasets.reading import read_datasets
from ...moa_attention.training.held_out import hold_out
from ...nodes.host.training.data import encode_pictures
from .models import LoadedModels
from .settings import Settings

SHOWN = 10
"""Lines of the report's details that are printed."""


def read_all_folders(settings: Settings) -> PictureFolder:
    """The pictures of all folders of a run.

    Raises: ValueError as `read_datasets` and `extracted`.
    """
    return read_datasets(datasets_of(settings), settings.data.words)


def datasets_of(settings: Settings) -> list[DatasetConfig]:
    """The folders of a run; archives are extracted into the output folder first.

    Raises: ValueError as `extracted`.
    """
    into = settings.output / "extracted"
    return [replace(each, folder=str(extracted(Path(each.folder), into))) for each in settings.data.datasets]


def fill_cache(settings: Settings, loaded: LoadedModels, pictures: PictureFolder, share: CacheShare) -> CachedPictures:
    """Encode the pictures that are not yet in the cache; the first process writes the report, and prints its beginning.

    Raises: ValueError when no picture can be trained on; LostProcess when another process ended.
    """
    with CacheBar(quiet=share.rank > 0) as bar:
        folder = settings.output / "cache"
        cached = encode_pictures(pictures, loaded.adapter, loaded.encoders, settings.data, folder, bar.show, share)
    if share.rank == 0:
        path, report = settings.output / "left_out.txt", cached.report()
        path.write_text(f"{report}\n", encoding="utf-8")
        print(report.shortened(SHOWN, path))
    return cached


class CacheBar:
    """The progress of all processes. Rate and remaining time count the pictures that were not in the cache before."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.bar: tqdm | None = None

    def __enter__(self) -> CacheBar:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, total: int) -> None:
        """Called first with the pictures that are in the cache already."""
        if self.bar is None:
            self.bar = tqdm(total=total, initial=done, desc="cache", unit="picture", disable=self.quiet)
        self.bar.update(done - self.bar.n)


def divide(cached: CachedPictures, held_out: int) -> tuple[CachedPictures, CachedPictures]:
    """The pictures that are trained on, and `held_out` that are not.

    Raises: ValueError when nothing is left to train on.
    """
    first, second = hold_out(cached.entries, held_out)
    return replace(cached, entries=first), replace(cached, entries=second)
