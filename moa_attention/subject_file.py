"""A subject in a file: its image feature, and a thumbnail to know it by. safetensors with a header, as adapters are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .files import write_tensors

FORMAT, VERSION = "moa-subject", "1"


class SubjectFileError(ValueError):
    """The file is no subject this version can read; the message says what was found."""


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
    """Raises: SubjectFileError when the file is damaged, no subject, or of an unknown version."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise SubjectFileError(f"'{path}' cannot be read as safetensors: {error}") from error
    found = (metadata.get("format"), metadata.get("format_version"))
    if found != (FORMAT, VERSION):
        raise SubjectFileError(
            f"'{path}' is not a subject that can be read here: wanted {FORMAT} {VERSION}, found {found[0]} {found[1]}. Subjects "
            "are what MoASaveSubject writes into models/moa/subjects."
        )
    try:
        number, tokens = int(metadata["occurrence"]), int(metadata.get("tokens", "0"))
        return StoredSubject(
            tensors["features"], metadata["encoder"], metadata["word"], number, tokens, tensors.get("thumbnail")
        )
    except (KeyError, ValueError) as error:
        raise SubjectFileError(f"'{path}' has a malformed header ({error!r}); save the subject again.") from error
