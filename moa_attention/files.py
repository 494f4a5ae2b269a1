"""Writing a safetensors file so that it is either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
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
