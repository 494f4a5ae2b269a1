"""The files of the cache. A shard holds a few dozen pictures, chosen by a hash of their names, and is named by a hash of
everything that it depends on: adding or changing a picture recomputes only its shard."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ...formats.tensors import read_metadata, write_tensors
from ..data.encoders import Encoders
from ..data.pictures import BadPicture, Remark, TrainingPicture
from .encoding import EncodedPicture
from .entries import CachedPictures, CacheEntry, CacheSettings

SHARD = 64
"""Largest number of pictures in a shard; a larger group is divided."""
HASH_BITS = 64
VERSION = 4


def shards(pictures: Sequence[TrainingPicture], bit: int = 0) -> Iterator[Sequence[TrainingPicture]]:
    """The pictures in groups by the bits of a hash of their names.

    Only the group of a picture that is added or removed changes: a group that becomes too large is divided by its next bit.
    """
    if len(pictures) <= SHARD or bit == HASH_BITS:
        if pictures:
            yield pictures
        return
    for half in (0, 1):
        yield from shards([p for p in pictures if name_hash(p) >> bit & 1 == half], bit + 1)


def name_hash(picture: TrainingPicture) -> int:
    """`HASH_BITS` bits of a picture's name and its folder's, which a copy of the whole folder keeps."""
    name = os.fsencode("/".join(picture.path.parts[-2:]))
    return int.from_bytes(hashlib.blake2b(name, digest_size=HASH_BITS // 8).digest(), "big")


def shard_key(members: Sequence[TrainingPicture], encoders: Encoders, settings: CacheSettings) -> str:
    """A hash of everything a shard depends on."""
    files = []
    for picture in members:
        subjects = picture.subjects
        used = [picture.path, *(s.mask.path for s in subjects), *(r for s in subjects for r in s.references)]
        stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) if p.exists() else (p.name, 0, 0) for p in used]
        files.append(([(c.text, c.ends) for c in picture.captions], stats))
    content = json.dumps([VERSION, encoders.fingerprint, vars(settings), files])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def write_shard(path: Path, encoded: Sequence[EncodedPicture | BadPicture]) -> None:
    """Write these pictures, with what looks wrong in them and the reasons why some are dropped.

    Raises: OSError when the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    entries: list[tuple[int, int, int]] = []
    dropped: list[tuple[int, str]] = []
    warnings: list[tuple[int, str]] = []
    for index, picture in enumerate(encoded):
        if isinstance(picture, BadPicture):
            dropped.append((index, str(picture)))
            continue
        tensors |= {f"{len(entries)}.{name}": tensor for name, tensor in picture.content.items()}
        entries.append((*picture.shape, sum(name.startswith("context.") for name in picture.content)))
        warnings += [(index, warning) for warning in picture.warnings]
    # One entry of the header: safetensors writes several in a random order.
    content = json.dumps({"entries": entries, "dropped": dropped, "warnings": warnings})
    write_tensors(tensors, path, {"content": content})


def read_shard(path: Path, members: Sequence[TrainingPicture], cached: CachedPictures) -> None:
    """Add the entries of a shard to the cache's, and its remarks to the folder's."""
    content = json.loads(read_metadata(path)["content"])
    reasons = dict(content["dropped"])
    used = [picture for index, picture in enumerate(members) if index not in reasons]
    for row, (height, width, captions) in enumerate(content["entries"]):
        cached.entries.append(CacheEntry(path, row, (height, width), captions, used[row]))
    for index, reason in reasons.items():
        cached.folder.drop(members[index], reason)
    for index, warning in content["warnings"]:
        cached.folder.warnings.append(Remark(members[index].path, warning))


def remove_others(folder: Path, needed: Collection[Path]) -> None:
    """Remove the shards that are not needed, and what a killed run had begun to write."""
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.part")):
        if path not in needed:
            path.unlink(missing_ok=True)
