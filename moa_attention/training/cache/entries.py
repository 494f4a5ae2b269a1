"""What is cached, and with which settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import Augmentation
from ..data.framing import Shape
from ..data.pictures import FolderReport, PictureFolder, TrainingPicture


@dataclass(frozen=True)
class CacheSettings:
    """The settings that decide what is cached."""

    side: int
    """Pictures get about side² pixels."""
    views: int
    """Augmented references of each subject, for a frozen image encoder; 0 for adapters with their own encoder."""
    augmentation: Augmentation


@dataclass(frozen=True)
class CacheEntry:
    """A cached picture."""

    file: Path
    row: int
    shape: Shape
    """Of the framed picture, in pixels."""
    captions: int = 1
    picture: TrainingPicture | None = None
    """The picture that was encoded; None only in entries that no folder was read for."""


@dataclass(frozen=True)
class CachedPictures:
    """The cache of a folder's pictures."""

    entries: list[CacheEntry]
    folder: PictureFolder
    """With what was left out while reading or encoding."""

    def report(self) -> FolderReport:
        """The report that users read."""
        return self.folder.report(len(self.entries))
