"""Pickled files of torch, read as tensors and nothing else."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import comfy.utils
import torch
from torch import Tensor

from ....moa_attention.formats.errors import StoredFileError, printable
from ....moa_attention.formats.ip_adapter.importing import flatten
from ....moa_attention.formats.tensors import StoredFile, check_file, from_memory

T = TypeVar("T")
EMBED = "embed"
"""Name of the tensor of a file that holds one alone."""


def open_pickled(path: Path, alone: bool = False) -> StoredFile:
    """A .bin file of torch.

    Args: alone: the file holds one tensor, `EMBED`, instead of several with names.
    Raises: StoredFileError when it is missing, damaged, holds something else than tensors, or claims more than it holds.
    """
    check_file(path)
    parse = one_tensor if alone else named_tensors

    def load(device: str) -> StoredFile:
        return from_memory(path, parsed(path, lambda: parse(path, torch.device(device))))

    return replace(load("meta"), read=lambda wanted: load("cpu").read(wanted))


def parsed(path: Path, parse: Callable[[], T]) -> T:
    """What is in a file.

    Raises: StoredFileError whatever `parse` raises: a damaged or malicious pickle may raise anything.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as container:
                claimed = sum(part.file_size for part in container.infolist())
            if claimed > path.stat().st_size:
                raise ValueError(f"its parts would have {claimed} bytes, more than the file")
        return parse()
    except Exception as error:
        raise StoredFileError(
            path,
            f"cannot be read as tensors ({printable(error)}). Download it again, if possible as .safetensors.",
        ) from error


def named_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    """On the device "meta" no values are read."""
    content: Any = comfy.utils.load_torch_file(str(path), safe_load=True, device=device)
    return flatten(content)


def one_tensor(path: Path, device: torch.device) -> dict[str, Tensor]:
    """A file that is a tensor, which the host's own loader does not take."""
    content: Any = torch.load(path, map_location=device, weights_only=True)
    if type(content) is not Tensor:
        raise ValueError(f"it holds {type(content).__name__} instead of a tensor")
    return {EMBED: content}
