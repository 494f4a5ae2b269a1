"""safetensors files with a header of ours: written whole or not at all, and read only when they are what was wanted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write beside, then rename: whoever is killed while writing, or fills the disk, leaves the file before as it was.

    Raises: OSError saying how much room there is and how much is needed.
    """
    part = path.with_name(path.name + ".part")
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, part, metadata=dict(metadata))
        os.replace(part, path)
    except (SafetensorError, OSError) as error:
        part.unlink(missing_ok=True)
        needed = sum(t.numel() * t.element_size() for t in ready.values()) / 2**20
        free = shutil.disk_usage(path.parent).free / 2**20
        kept = "the file that was there is untouched" if path.exists() else "no such file was there before"
        raise OSError(f"Could not write {needed:.0f} MiB to '{path}' ({free:.0f} MiB free; {kept}): {error}") from error


class StoredFileError(ValueError):
    """The file cannot be read here; the message says what was wanted, what was found and what to do."""


def read_tensors(path: Path, form: str, version: str, advice: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of a file.

    Args: form, version: what its header must say; advice: where such files come from.
    Raises: StoredFileError when the file is damaged, something else, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise StoredFileError(f"'{path}' cannot be read as safetensors: {error}") from error
    found = (header.get("format"), header.get("format_version"))
    if found != (form, version):
        raise StoredFileError(
            f"'{path}' cannot be used here: wanted {form} {version}, found {found[0]} {found[1]}. {advice}"
        )
    return tensors, header
