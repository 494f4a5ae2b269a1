"""The cache's table of contents, `manifest.json`: every shard with its pictures, its size and a hash of its bytes.

A shard whose size or time differs from the manifest's, because it was copied or changed, is compared by its hash.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...formats.atomic import replacing
from ...formats.fingerprint import file_sha256
from ...formats.tensors import StoredFileError, read_metadata
from .entries import CacheSettings

MANIFEST = "manifest.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardRecord:
    """A line of the manifest."""

    pictures: int
    bytes: int
    time: int
    """Of its last change, in nanoseconds."""
    sha256: str


def record_of(path: Path, pictures: int) -> ShardRecord:
    """The record of a shard as it is on the disk, which is read whole."""
    status = path.stat()
    return ShardRecord(pictures, status.st_size, status.st_mtime_ns, file_sha256(path))


def intact_record(path: Path, pictures: int, known: ShardRecord | None) -> ShardRecord | None:
    """The record of a shard that is whole; None for one that is missing or damaged, which the log names.

    Args: known: its record in the manifest. Without one, only the header is checked.
    """
    if not path.is_file():
        return None
    status = path.stat()
    if known is not None and (known.bytes, known.time) == (status.st_size, status.st_mtime_ns):
        return known
    try:
        read_metadata(path)
        found = record_of(path, pictures)
    except StoredFileError:
        found = None
    if found is None or (known is not None and found.sha256 != known.sha256):
        logger.warning("'%s' is cut or damaged; its pictures are encoded again.", path)
        return None
    return found


def read_manifest(folder: Path) -> dict[str, ShardRecord]:
    """The records by the names of their shards; a manifest that is missing or damaged has none."""
    try:
        return as_records(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def as_records(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, ShardRecord]:
    """Records out of JSON.

    Raises: TypeError when a row has other fields.
    """
    return {name: ShardRecord(**row) for name, row in rows.items()}


def write_manifest(folder: Path, shards: Mapping[str, ShardRecord], encoders: str, settings: CacheSettings) -> None:
    """Write the table.

    Args: encoders: their fingerprint.
    """
    content = {
        "pictures": sum(record.pictures for record in shards.values()),
        "encoders": encoders,
        "settings": asdict(settings),
        "shards": {name: asdict(shards[name]) for name in sorted(shards)},
    }
    with replacing(folder / MANIFEST) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
