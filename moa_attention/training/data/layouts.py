"""Reading a folder in whichever of the known layouts it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .fastcomposer import is_fastcomposer, read_fastcomposer
from .folder import read_folder
from .pictures import Reading
from .words import PERSON_WORDS


def read_pictures(root: Path, words: Sequence[str] = PERSON_WORDS) -> Reading:
    """The pictures of a folder, and what was left out and why.

    Args: words: nouns that can be a subject where captions have no marks.
    """
    return read_fastcomposer(root) if is_fastcomposer(root) else read_folder(root, words)
