"""Messages about files: one sentence or two on one line, whatever the file holds."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from pathlib import Path

BREAKING = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, halves of characters, and separators of lines."""


class StoredFileError(ValueError):
    """A file cannot be used here.

    Args: path: the file; problem: the rest of the message: what was expected, what was found and what to do.
    """

    def __init__(self, path: Path, problem: str):
        super().__init__(f"'{printable(path, 1000)}' {problem}")


def malformed(path: Path, problem: str) -> StoredFileError:
    """The error for a header with wrong contents."""
    return StoredFileError(path, f"has a malformed header: {problem}. Ask its publisher for a new file.")


def printable(text: object, length: int = 200) -> str:
    """Text from a file on one line: characters that are not visible are escaped, and it is no longer than `length`."""
    cut = str(text)[: length + 1]
    shown = "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in cut)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def is_one_line(text: str) -> bool:
    """Whether a name has no control characters and no breaks."""
    return not any(unicodedata.category(c) in BREAKING for c in text)


def enumeration(names: Collection[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    first = ", ".join(printable(name, 100) for name in sorted(names)[:most]) or "nothing"
    return first if len(names) <= most else f"{first} and {len(names) - most} more"
