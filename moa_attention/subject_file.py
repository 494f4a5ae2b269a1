"""A subject in a file: its image feature, and a thumbnail to know it by. safetensors with a header, as adapters are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .files import StoredFileError, read_tensors, write_tensors

FORMAT, VERSION = "moa-subject", "1"


class StoredSubject(NamedTuple):
    """What a file holds."""

    features: Tensor
    """(1,F)"""
    encoder: str
    """Identity of the image features, as of the adapter that made them."""
    word: str
    occurrence: int
    tokens: int
    """Image tokens in the features; 0: they are none."""
    thumbnail: Tensor | None
    """(h,w,3) uint8"""


def save_subject(subject: StoredSubject, path: Path) -> None:
    """Write atomically.

    Raises: OSError saying how much room is missing.
    """
    tensors = {"features": subject.features}
    if subject.thumbnail is not None:
        tensors["thumbnail"] = subject.thumbnail
    told = {"encoder": subject.encoder, "word": subject.word, "occurrence": str(subject.occurrence)}
    told["tokens"] = str(subject.tokens)
    write_tensors(tensors, path, {"format": FORMAT, "format_version": VERSION, **told})


def load_subject(path: Path) -> StoredSubject:
    """Raises: StoredFileError when the file is damaged, no subject, or of an unknown version."""
    tensors, header = read_tensors(path, FORMAT, VERSION, "MoASaveSubject writes subjects into models/moa/subjects.")
    try:
        number, tokens = int(header["occurrence"]), int(header.get("tokens", "0"))
        return StoredSubject(
            tensors["features"], header["encoder"], header["word"], number, tokens, tensors.get("thumbnail")
        )
    except (KeyError, ValueError) as error:
        raise StoredFileError(f"'{path}' has a malformed header ({error!r}); save the subject again.") from error
