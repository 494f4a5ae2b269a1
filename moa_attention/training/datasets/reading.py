"""Reads the folders of a run as one: their pictures, and what is left out of each and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from ..data.captions import PERSON_WORDS
from ..data.fastcomposer import is_fastcomposer
from ..data.folder import read_pictures
from ..data.listing import CAPTION
from ..data.pictures import Caption, PictureFolder, TrainingPicture
from ..data.texts import CaptionTexts, texts_of
from ..lots import generator_for
from .config import DatasetConfig
from .tags import shuffled


def read_datasets(datasets: Sequence[DatasetConfig], words: Sequence[str] = PERSON_WORDS) -> PictureFolder:
    """The pictures of all folders.

    Args: words: nouns that can be a subject, for folders that name none.
    Raises: ValueError as `check_dataset` and `check_apart`.
    """
    check_apart(datasets)
    found = PictureFolder()
    for dataset in datasets:
        read = read_dataset(dataset, words)
        found.files += read.files
        found.pictures += [with_settings(picture, dataset) for picture in read.pictures]
        found.dropped += read.dropped
        found.unused += read.unused
        found.warnings += read.warnings
    return found


def check_dataset(dataset: DatasetConfig) -> None:
    """Raises: ValueError when the folder does not exist or has settings it cannot have, or its metadata file cannot be used."""
    root = Path(dataset.folder)
    if not root.is_dir():
        raise ValueError(f"there is no folder of pictures {root.resolve()}.")
    if is_fastcomposer(root) and (dataset.trigger or dataset.captions != CAPTION):
        raise ValueError(
            f"{root} has FastComposer's layout, whose captions are in its .json files. Remove 'captions' and 'trigger'."
        )
    if not list(root.glob("*.tar")):
        captions_of(dataset)


def check_apart(datasets: Sequence[DatasetConfig]) -> None:
    """Raises: ValueError naming two folders of which one contains the other."""
    for one, other in combinations([Path(dataset.folder).resolve() for dataset in datasets], 2):
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise ValueError(
                f"{one} and {other} contain the same pictures. Name every folder once; 'repeats' shows its pictures more often."
            )


def read_dataset(dataset: DatasetConfig, words: Sequence[str] = PERSON_WORDS) -> PictureFolder:
    """The pictures of one folder, with its captions and triggers."""
    return read_pictures(Path(dataset.folder), dataset.words or words, captions_of(dataset))


def captions_of(dataset: DatasetConfig) -> CaptionTexts:
    """The texts of a folder's captions. Raises: ValueError as `texts_of`."""
    return texts_of(Path(dataset.folder), dataset.captions, dataset.column, dataset.trigger)


def with_settings(picture: TrainingPicture, dataset: DatasetConfig) -> TrainingPicture:
    """A picture with what its folder's settings make of it."""
    kept = dataset.trigger.count(",") + 1 if dataset.trigger else 0
    captions = tuple(version for caption in picture.captions for version in versions(caption, dataset, kept))
    return replace(picture, captions=captions, repeats=dataset.repeats, weight=dataset.weight)


def versions(caption: Caption, dataset: DatasetConfig, kept: int) -> Sequence[Caption]:
    """The versions of a caption with shuffled tags, the same in every run; the caption itself where none are wanted."""
    if not dataset.shuffles:
        return [caption]
    generator = generator_for("tags", caption.text, dataset.tag_dropout)
    return [shuffled(caption, kept, dataset.tag_dropout, generator) for _ in range(dataset.shuffles)]
