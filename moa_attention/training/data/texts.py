"""Where the captions of a folder's pictures are: in files beside them, or in one metadata file."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...formats.errors import printable
from .captions import read_text
from .listing import CAPTION
from .pictures import BadPicture

JSON, METADATA = ".json", (".jsonl", ".csv", ".parquet")
NAMES = "file_name"
"""The column of a metadata file with the names of the pictures, relative to the folder (as the library datasets has it)."""


@dataclass(frozen=True)
class CaptionTexts:
    """The texts of captions, still with their marks.

    Args:
        suffix: of the files beside the pictures; empty where there is a metadata file.
        column: the field of a JSON file with the captions.
        file, rows: a metadata file, and its texts by picture.
        trigger: text before every caption.
    """

    suffix: str = CAPTION
    column: str = ""
    file: Path | None = None
    rows: Mapping[Path, list[str]] | None = None
    trigger: str = ""

    def read(self, picture: Path, beside: list[Path]) -> list[str]:
        """The captions of a picture, one line each.

        Args: beside: the caption files of its name.
        Raises: BadPicture when there is none, or it cannot be read.
        """
        lines = [" ".join(line.split()) for text in self.texts(picture, beside) for line in text.splitlines()]
        found = [f"{self.trigger}, {line}" if self.trigger else line for line in lines if line]
        if not found:
            raise BadPicture(f"no caption: {(beside[0] if beside else self.file or picture).name} is empty")
        return found

    def texts(self, picture: Path, beside: list[Path]) -> list[str]:
        """As they are stored."""
        if self.file is not None and self.rows is not None:
            if picture not in self.rows:
                raise BadPicture(f"no caption: {self.file.name} has no row for the picture")
            return self.rows[picture]
        if len(beside) != 1:
            names = " and ".join(path.name for path in beside)
            raise BadPicture(
                f"two captions of one name: {names}"
                if names
                else f"no caption: {picture.stem}{self.suffix} does not exist"
            )
        text = read_text(beside[0])
        return [text] if self.suffix == CAPTION else self.field(text, beside[0].name)

    def field(self, text: str, name: str) -> list[str]:
        """The captions in a JSON file."""
        try:
            return as_texts(json.loads(text)[self.column])
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise BadPicture(
                f"malformed json: {name} has no text in '{self.column}' ({printable(repr(error))})"
            ) from error


def texts_of(root: Path, captions: str, column: str, trigger: str) -> CaptionTexts:
    """Those of a folder, by the settings of the same names.

    Raises: ValueError naming the metadata file when it cannot be read or lacks a column.
    """
    if captions in (CAPTION, JSON):
        return CaptionTexts(captions, column, trigger=trigger)
    file = root / captions
    if not file.is_file():
        raise ValueError(f"There is no metadata file {file.resolve()}, which 'captions' names.")
    rows: dict[Path, list[str]] = {}
    try:
        for number, row in enumerate(metadata_rows(file), start=1):
            if NAMES not in row or column not in row:
                raise ValueError(
                    f"row {number} lacks the column '{NAMES}' or '{column}'; it has {', '.join(map(str, row))}"
                )
            rows[root / str(row[NAMES])] = as_texts(row[column])
    except (ValueError, TypeError, LookupError, OSError, csv.Error, RecursionError) as error:
        raise ValueError(f"The metadata file {file} cannot be used: {printable(error)}.") from error
    return CaptionTexts("", column, file, rows, trigger)


def metadata_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a metadata file.

    Raises: ValueError and what the readers raise when it is damaged, or pyarrow is needed and not installed.
    """
    if file.suffix.lower() == ".parquet":
        yield from parquet_rows(file)
        return
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix.lower() == ".csv":
            yield from csv.DictReader(lines)
        else:
            yield from (json.loads(line) for line in lines if line.strip())


def parquet_rows(file: Path) -> Iterable[Mapping[str, Any]]:
    """By pyarrow. Raises: ValueError when it is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError("a .parquet file needs the package pyarrow, which is not installed; run `pip install pyarrow`")
    import pyarrow.parquet

    return pyarrow.parquet.read_table(file).to_pylist()


def as_texts(value: Any) -> list[str]:
    """One or several captions. Raises: TypeError for anything but texts; an empty cell has none."""
    texts = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"a caption must be a text or a list of texts, found {value!r}")
    return texts
