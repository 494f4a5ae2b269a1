"""Subjects as files in models/moa/subjects, each with a thumbnail."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from ....moa_attention.formats.subject import TEXT_LENGTH, StoredSubject, load_subject, save_subject
from ....moa_attention.pictures import to_image
from ....moa_attention.subjects.reference import GREY, fit_to_square
from ...sockets import Subject
from ..prompts.tiles import check_no_tiles
from .folders import SUBJECTS, new_file, subject_path

THUMBNAIL = 256
"""Pixels of a side."""


def store_subject(subject: Subject, prefix: str, pictures: Tensor | None, licence: str = "") -> Path:
    """Write a subject, without its settings, to a new file; the first of the pictures (B,H,W,3) becomes the thumbnail.

    Raises: ValueError when the subject has no picture, is in tiles, or has a picture for each frame; as `new_file`.
    """
    if subject.absent:
        raise ValueError(
            f"Nothing to save as '{prefix}': 'Encode Subject (MoA)' received no picture of '{subject.word}'. The report of 'Crop "
            "Subject (MoA)' shows why the pictures are left out."
        )
    if len(subject.features) > 1:
        raise ValueError(
            f"'{subject.word}' has a picture for each frame, and a file holds one subject. Save it with another 'combine' in 'Encode Subject "
            "(MoA)'."
        )
    check_no_tiles([subject])
    note = licence_note(licence)
    path = new_file(SUBJECTS, prefix)
    thumbnail = make_thumbnail(pictures[0]) if pictures is not None and len(pictures) else None
    saved = (subject.features, subject.encoder, subject.word, subject.occurrence, subject.tokens)
    cover = "" if thumbnail is None else encoded(thumbnail)
    save_subject(StoredSubject(*saved, thumbnail, subject.negative, note, cover), path)
    return path


def licence_note(text: str) -> str:
    """The note on one line.

    Raises: ValueError when it is too long for a file.
    """
    note = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(note) > TEXT_LENGTH:
        raise ValueError(
            f"'licence' in 'Save Subject (MoA)' has {len(note)} characters, allowed are {TEXT_LENGTH}. Shorten the note."
        )
    return note


def make_thumbnail(picture: Tensor) -> Tensor:
    """(H,W,3) in [0,1] -> (THUMBNAIL,THUMBNAIL,3) uint8."""
    small = fit_to_square(rearrange(picture, "h w c -> c h w").float(), THUMBNAIL)
    return (rearrange(small, "c h w -> h w c").clamp(0, 1) * 255).round().byte()


def encoded(thumbnail: Tensor) -> str:
    """(h,w,3) uint8 -> a JSON list of one WebP file in Base64, as ComfyUI reads the picture of a model."""
    file = io.BytesIO()
    to_image(thumbnail.float() / 255).save(file, "WEBP", quality=85)
    return json.dumps([base64.b64encode(file.getvalue()).decode("ascii")])


def restore_subject(name: str, word: str, occurrence: int) -> tuple[Subject, Tensor, str]:
    """The subject behind a drop-down entry, its thumbnail (1,h,w,3), grey without one, and its licence note.

    Args: word, occurrence: replace the stored ones unless empty and 0.
    Raises: FileNotFoundError and StoredFileError as `subject_path` and `load_subject`.
    """
    stored = load_subject(subject_path(name))
    binding = (word.strip() or stored.word, occurrence or stored.occurrence)
    subject = Subject(*binding, stored.features, stored.encoder, tokens=stored.tokens, negative=stored.negative)
    grey = torch.full((THUMBNAIL, THUMBNAIL, 3), int(GREY * 255), dtype=torch.uint8)
    thumbnail = (grey if stored.thumbnail is None else stored.thumbnail)[None].float() / 255
    return subject, thumbnail, stored.licence
