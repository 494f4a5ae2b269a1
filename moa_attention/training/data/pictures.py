"""Training pictures, and the content of a folder of them: what is used, what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...formats.errors import printable

LINE = 2000
"""Characters of a line of the report."""


class BadPicture(ValueError):
    """A picture that cannot be trained on; the message is the reason in the report, "kind: details"."""


class MaskFile(NamedTuple):
    """The file of a mask."""

    path: Path
    value: int | None = None
    """The subject's number in a `.npy` segmentation; None: a picture, whose alpha or brightness is the mask."""


@dataclass(frozen=True)
class Caption:
    """A text and the places of the subjects in it."""

    text: str
    ends: tuple[int, ...]
    """Offsets just behind the word of each subject; the word's last token is bound to it."""


@dataclass(frozen=True)
class PictureSubject:
    """A person or a thing in a picture."""

    mask: MaskFile
    references: tuple[Path, ...] = ()
    """Other pictures of the same subject (ours); without any, the picture itself is the reference, as in the paper."""


@dataclass(frozen=True)
class TrainingPicture:
    """One picture to train on."""

    path: Path
    caption_file: Path | None
    """None where captions are in a file for the whole folder."""
    captions: tuple[Caption, ...]
    """One is drawn whenever the picture is shown; each has an end for each subject."""
    subjects: tuple[PictureSubject, ...]
    repeats: int = 1
    """How often an epoch shows it."""
    weight: float = 1.0
    """Factor of its losses."""

    @property
    def files(self) -> list[Path]:
        """The picture, its captions, masks and references."""
        masks = [subject.mask.path for subject in self.subjects]
        references = [path for subject in self.subjects for path in subject.references]
        captions = [] if self.caption_file is None else [self.caption_file]
        return list(dict.fromkeys([self.path, *captions, *masks, *references]))


class Remark(NamedTuple):
    """A line of the report on a file or a folder."""

    path: Path
    text: str
    """"kind: details"."""
    files: int = 1
    """Of how many files: a picture and what belongs to it, or the content of a folder."""

    def __str__(self) -> str:
        several = f" ({self.files} files)" if self.files > 1 else ""
        return printable(f"{self.path}: {self.text}{several}", LINE)


@dataclass
class PictureFolder:
    """The content of a folder. Every file belongs to one of the pictures, or is counted in `dropped` or `unused`."""

    files: int = 0
    pictures: list[TrainingPicture] = field(default_factory=list)
    dropped: list[Remark] = field(default_factory=list)
    """Pictures left out, with the files that belong to them."""
    unused: list[Remark] = field(default_factory=list)
    """Files that belong to no picture."""
    warnings: list[Remark] = field(default_factory=list)
    """What looks wrong, in pictures that are used or in the making of their masks."""

    def drop(self, picture: TrainingPicture, reason: str) -> None:
        """Leave out one of the pictures that were read."""
        self.dropped.append(Remark(picture.path, reason, len(picture.files)))

    def check_any(self) -> None:
        """Raises: ValueError with the report when no picture is left."""
        if not self.pictures:
            raise ValueError(f"Nothing to train on. {self.report(0)}")

    def report(self, used: int) -> FolderReport:
        """The report on `used` pictures and on everything else."""
        left, ignored = sum(r.files for r in self.dropped), sum(r.files for r in self.unused)
        summary = [f"{used} pictures to train on, {len(self.dropped)} left out", *kinds(self.dropped)]
        if self.warnings:
            summary += [f"{len(self.warnings)} warnings", *kinds(self.warnings)]
        summary.append(
            f"{self.files} files: {self.files - left - ignored} belong to pictures to train on, {left} to pictures left out, "
            f"{ignored} to no picture"
        )
        summary += kinds(remark for remark in self.unused for _ in range(remark.files))
        return FolderReport(summary, [str(r) for r in (*self.dropped, *self.warnings, *self.unused)])


class FolderReport(NamedTuple):
    """The report that users read."""

    summary: list[str]
    details: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.summary, *self.details])

    def shortened(self, details: int, elsewhere: Path) -> str:
        """With the first lines of the details only, and where the others are."""
        cut = [f"... the full report is in {elsewhere}"] if len(self.details) > details else []
        return "\n".join([*self.summary, *(f"  {line}" for line in self.details[:details]), *cut])


def kinds(remarks: Iterable[Remark]) -> list[str]:
    """The number of remarks of each kind, the most frequent first."""
    counted = Counter(remark.text.split(":")[0] for remark in remarks)
    return [f"  {count} × {kind}" for kind, count in counted.most_common()]
