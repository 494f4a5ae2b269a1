"""The subject file: an image feature, what negative prompts get in its place, its word, a thumbnail; safetensors with a header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .errors import StoredFileError, is_one_line, malformed, printable
from .tensors import StoredFile, open_expected, write_tensors

FORMAT, VERSION = "moa-subject", "1"
FEATURES = ("features", "negative")
COVER = "ssmd_cover_images"
"""The name by which ComfyUI finds the picture of a model."""
FEATURE_WIDTH, TOKENS, OCCURRENCES, THUMBNAIL, TEXT_LENGTH = 1 << 22, 1 << 12, 100, 1024, 500
"""Limits: numbers of a feature, image tokens in it, occurrences of a word, pixels of the thumbnail's side, characters."""


class StoredSubject(NamedTuple):
    """The contents of a file."""

    features: Tensor
    """(1,F); float32 when loaded"""
    encoder: str
    """Identity of the adapter that encoded the features (`Adapter.identity`)."""
    word: str
    occurrence: int
    tokens: int
    """Image tokens in the features; 0: they are one feature."""
    thumbnail: Tensor | None
    """(h,w,3) uint8"""
    negative: Tensor | None = None
    """(1,F') what negative prompts get in place of the features; float32 when loaded"""
    licence: str = ""
    """A note on whom or what the subject shows, and what it may be used for."""
    cover: str = ""
    """JSON with the thumbnail as encoded pictures; never read here, only by hosts that show the files of models."""


def save_subject(subject: StoredSubject, path: Path) -> None:
    """Write atomically.

    Raises: OSError stating the room that is missing.
    """
    tensors = {"features": subject.features}
    optional = {"thumbnail": subject.thumbnail, "negative": subject.negative}
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    entries = {"encoder": subject.encoder, "word": subject.word, "occurrence": str(subject.occurrence)}
    entries["tokens"] = str(subject.tokens)
    notes = {"licence": subject.licence, COVER: subject.cover}
    entries |= {name: value for name, value in notes.items() if value}
    write_tensors(tensors, path, {"format": FORMAT, "format_version": VERSION, **entries})


def load_subject(path: Path) -> StoredSubject:
    """Raises: StoredFileError when the file is damaged, no subject, of an unknown version, or holds what no subject can be."""
    advice = "The node 'Save Subject (MoA)' writes subjects into models/moa/subjects."
    stored = open_expected(path, FORMAT, VERSION, advice)
    header = {"tokens": "0", **(stored.header or {})}
    encoder, word = text(path, header, "encoder"), text(path, header, "word")
    occurrence = number(path, header, "occurrence", range(1, OCCURRENCES + 1))
    tokens = number(path, header, "tokens", range(TOKENS + 1))
    licence = text(path, header, "licence") if "licence" in header else ""
    check_tensors(stored, tokens)
    tensors = stored.read(stored.tensors.keys())
    numbers = {name: tensors[name].float() for name in FEATURES if name in tensors}
    if not all(each.isfinite().all() for each in numbers.values()):
        raise StoredFileError(path, "contains features that are NaN or infinite. Save the subject again.")
    found = (tensors.get("thumbnail"), numbers.get("negative"))
    return StoredSubject(numbers["features"], encoder, word, occurrence, tokens, *found, licence)


def text(path: Path, header: Mapping[str, str], entry: str) -> str:
    """Raises: StoredFileError when an entry is missing, empty, too long, or holds control characters."""
    found = header.get(entry, "")
    if not found.strip() or len(found) > TEXT_LENGTH or not is_one_line(found):
        raise malformed(
            path, f"'{entry}' must be 1 to {TEXT_LENGTH} printable characters, found {printable(found, 40)!r}"
        )
    return found


def number(path: Path, header: Mapping[str, str], entry: str, allowed: range) -> int:
    """Raises: StoredFileError when an entry is no whole number, or out of range."""
    found = header.get(entry, "")
    if not (found.isascii() and found.isdigit() and len(found) < 10 and int(found) in allowed):
        wanted = f"a whole number from {allowed.start} to {allowed.stop - 1}"
        raise malformed(path, f"'{entry}' must be {wanted}, found {printable(found, 40)!r}")
    return int(found)


def check_tensors(stored: StoredFile, tokens: int) -> None:
    """Raises: StoredFileError when there are others than features (1,F) and perhaps a thumbnail (h,w,3) of bytes."""
    unexpected = stored.tensors.keys() - {*FEATURES, "thumbnail"}
    if unexpected:
        raise malformed(stored.path, f"expected one feature of fractions, found {printable(min(unexpected))}")
    for name in FEATURES[: 1 + ("negative" in stored.tensors)]:
        rows, width = stored.shape(name, 2)
        if rows != 1 or width > FEATURE_WIDTH or not stored.tensors[name].is_floating_point():
            found = f"{name} {rows} × {width}, {stored.tensors[name].dtype}"
            raise malformed(stored.path, f"expected one feature of fractions, found {printable(found)}")
    width = stored.shape("features", 2)[1]
    if tokens and width % tokens:
        raise malformed(stored.path, f"{tokens} image tokens do not divide a feature {width} wide")
    if "negative" in stored.tensors and (not tokens or stored.shape("negative", 2)[1] % (width // tokens)):
        raise malformed(stored.path, "its negative does not consist of image tokens as wide as those of its feature")
    if "thumbnail" in stored.tensors:
        height, width, channels = stored.shape("thumbnail", 3)
        precision = str(stored.tensors["thumbnail"].dtype).removeprefix("torch.")
        if channels != 3 or max(height, width) > THUMBNAIL or precision != "uint8":
            found = f"{height} × {width} × {channels}, {precision}"
            raise malformed(
                stored.path, f"its thumbnail must be bytes, at most {THUMBNAIL} × {THUMBNAIL} × 3, found {found}"
            )
