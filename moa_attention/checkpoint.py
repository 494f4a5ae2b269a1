"""The adapter file: safetensors with a versioned header. `weights/README.md` is the normative description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from .adapter import MoAAdapter
from .config import MoAConfig
from .files import write_tensors

FORMAT = "moa-adapter"
VERSION = "1"


class AdapterFileError(ValueError):
    """The file is not an adapter this version can read; the message says what was sought and what was found."""


class Header(NamedTuple):
    """What the file says of itself."""

    config: MoAConfig
    licence: str
    provenance: dict[str, Any]
    """Free text and numbers: data, steps, losses."""


def save_adapter(
    adapter: MoAAdapter,
    path: str | Path,
    *,
    licence: str,
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write the adapter atomically: the old file stays until the new one is complete.

    Args: dtype: precision on disk, by default that of each tensor.
    Raises: OSError saying how much room is missing.
    """
    tensors = {k: v.detach().to("cpu", dtype or v.dtype) for k, v in adapter.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "format_version": VERSION,
        "base": adapter.config.base,
        "image_encoder": adapter.config.image_encoder,
        "config": adapter.config.to_json(),
        "licence": licence,
        "provenance": json.dumps(dict(provenance)),
    }
    write_tensors(tensors, Path(path), metadata)


def read_header(path: str | Path) -> Header:
    """Read what the file says of itself, without its tensors.

    Raises: AdapterFileError when the file is damaged, no adapter, or of an unknown version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(
            f"'{path}' cannot be read as safetensors ({error}). The file is damaged or its download is incomplete: "
            "compare its size and sha256 with the publisher's and download it again."
        ) from error
    if metadata.get("format") != FORMAT:
        found = f"format '{metadata['format']}'" if "format" in metadata else "no format entry in its header"
        raise AdapterFileError(
            f"'{path}' is not a MoA adapter: wanted format '{FORMAT}', found {found}. "
            "Checkpoints, LoRAs and IP-Adapters go into other loaders."
        )
    if metadata.get("format_version") != VERSION:
        raise AdapterFileError(
            f"'{path}' has format_version '{metadata.get('format_version')}', this version of the extension reads "
            f"'{VERSION}'. Update the extension, or ask the publisher for a file in that version."
        )
    try:
        config = MoAConfig.from_json(metadata["config"])
        provenance = json.loads(metadata.get("provenance", "{}"))
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterFileError(
            f"'{path}' has a malformed header ({error!r}); ask its publisher for a new file."
        ) from error
    return Header(config, metadata.get("licence", "not stated"), provenance)


def load_adapter(
    path: str | Path, *, operations: ModuleType | type = nn, device: str | torch.device = "cpu", assign: bool = False
) -> MoAAdapter:
    """Build the adapter a file describes and load it strictly, in the file's own precision.

    Args: assign: keep the tensors read from disk instead of copying them into fresh ones.
    Raises: AdapterFileError, naming missing, unexpected or misshapen tensors.
    """
    config = read_header(path).config
    with safe_open(path, framework="pt", device=str(device)) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    dtype = next(iter(tensors.values())).dtype if tensors else None
    adapter = MoAAdapter(config, operations=operations, device=device, dtype=dtype)
    try:
        adapter.load_state_dict(tensors, strict=True, assign=assign)
    except RuntimeError as error:
        raise AdapterFileError(f"'{path}' does not hold the tensors its header describes: {error}") from error
    return adapter.eval().requires_grad_(False)
