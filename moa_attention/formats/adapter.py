"""The adapter file: safetensors with a versioned header. `weights/README.md` is the normative description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..adapters.moa import MoAAdapter
from ..method.factory import PLAIN, Factory
from .config import config_to_json, read_config
from .errors import StoredFileError, malformed, printable
from .plan import Header, Plan, load_planned
from .tensors import StoredFile, open_stored, write_tensors

FORMAT = "moa-adapter"
VERSION = "1"


def save_adapter(
    adapter: MoAAdapter,
    path: str | Path,
    *,
    licence: str,
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    subjects: str = "",
) -> None:
    """Write the adapter atomically: the old file stays until the new one is complete.

    Args:
        dtype: precision on disk, by default that of each tensor.
        subjects: as in `Header`, by default what the weights have.
    Raises: OSError stating the room that is missing.
    """
    tensors = {k: v.detach().to("cpu", dtype or v.dtype) for k, v in adapter.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "format_version": VERSION,
        "base": adapter.config.base,
        "image_encoder": adapter.config.image_encoder,
        "config": config_to_json(adapter.config),
        "subjects": subjects or adapter.identity,
        "licence": licence,
        "provenance": json.dumps(dict(provenance)),
    }
    write_tensors(tensors, Path(path), metadata)


def parse_header(stored: StoredFile) -> Header:
    """Raises: StoredFileError when the file is no adapter, of an unknown version, or has a malformed header."""
    path, metadata = stored.path, stored.header or {}
    if metadata.get("format") != FORMAT:
        found = f"format '{printable(metadata['format'])}'" if "format" in metadata else "no format entry in its header"
        raise StoredFileError(
            path,
            f"is not a MoA adapter: expected format '{FORMAT}', found {found}. Checkpoints and LoRAs have loaders of "
            "their own; IP-Adapters belong in models/ipadapter.",
        )
    if metadata.get("format_version") != VERSION:
        raise StoredFileError(
            path,
            f"has format_version '{printable(metadata.get('format_version'))}', but this version of the extension reads "
            f"'{VERSION}'. Update the extension, or ask the publisher for a file in format_version '{VERSION}'.",
        )
    entry = stored.parse("config")
    try:
        config = read_config(entry)
    except ValueError as error:
        raise malformed(path, printable(error, 300)) from error
    licence, subjects = metadata.get("licence", "not stated"), printable(metadata.get("subjects", ""))
    return Header(config, licence, parse_provenance(stored), subjects)


def parse_provenance(stored: StoredFile) -> dict[str, Any]:
    """The record of a file's origin; empty without one.

    Raises: StoredFileError when it is no JSON object.
    """
    provenance = stored.parse("provenance") if "provenance" in (stored.header or {}) else {}
    if not isinstance(provenance, dict):
        raise malformed(stored.path, f"its provenance must be a JSON object, found {type(provenance).__name__}")
    return provenance


def read_header(path: str | Path) -> Header:
    """The header of an adapter file, without its tensors.

    Raises: StoredFileError when the file is damaged, no adapter, or of an unknown version.
    """
    return parse_header(open_stored(Path(path)))


def plan_adapter(stored: StoredFile, factory: Factory) -> Plan:
    """The adapter that the header describes, on the meta device.

    Raises: StoredFileError as `parse_header`.
    """
    header = parse_header(stored)
    if 16 * header.config.encoder_tail + len(header.config.layers) > len(stored.tensors):
        problem = f"does not contain the tensors that its header describes: it has {len(stored.tensors)}"
        raise StoredFileError(stored.path, f"{problem}. Ask its publisher for a new file.")
    adapter = MoAAdapter(header.config, replace(factory, device="meta"))
    return Plan("a MoA adapter as its header describes it", adapter, {name: name for name in stored.tensors}, header)


def load_adapter(path: str | Path, factory: Factory = PLAIN) -> MoAAdapter:
    """The MoA adapter in a file, strictly, in the file's own precision.

    Raises: StoredFileError when the file is damaged, no adapter, or does not hold the tensors that its header describes.
    """
    stored = open_stored(Path(path))
    adapter = load_planned(stored, plan_adapter(stored, factory)).adapter
    assert isinstance(adapter, MoAAdapter)
    return adapter
