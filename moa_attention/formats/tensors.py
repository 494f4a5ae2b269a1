"""Tensor files with a header: checked before a tensor is read, read into memory of our own, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .atomic import replacing
from .errors import StoredFileError, malformed, printable

HEADER_BYTES, TENSORS, DIMENSIONS = 1 << 24, 1 << 14, 8
"""Limits of a file: bytes of its header, number of its tensors, dimensions of one. Stable Diffusion XL whole has 2,500 tensors."""
PRECISIONS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Of tensors, by their names in the header."""
NOT_THE_FILE = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file that it stands for. Run 'git lfs pull' in its repository, "
    "or download the file itself.",
    b"<!DOCTYPE": "is a web page, not a tensor file. Use the download link of the file itself.",
    b"<html": "is a web page, not a tensor file. Use the download link of the file itself.",
}
"""What is saved under the file's name where a download went wrong, by its first bytes."""


@dataclass(frozen=True)
class StoredFile:
    """A file that is open to inspection; no tensor has been read yet."""

    path: Path
    header: Mapping[str, str] | None
    """The metadata of a safetensors file; None for a pickled file, which has none."""
    tensors: Mapping[str, Tensor]
    """On the meta device: names, shapes and precisions."""
    read: Callable[[Collection[str]], dict[str, Tensor]]
    """These tensors as copies: a mapped one would change with the file, and end the process where the file shrinks.

    Raises: StoredFileError.
    """

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises: StoredFileError when it is missing or has another number of dimensions.
        """
        if name not in self.tensors:
            raise StoredFileError(self.path, f"is incomplete: it lacks '{printable(name)}'. Download it again.")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dimensions:
            raise StoredFileError(
                self.path, f"is malformed: '{printable(name)}' has {len(shape)} dimensions instead of {dimensions}."
            )
        return shape

    def parse(self, entry: str) -> Any:
        """A header entry that holds JSON.

        Raises: StoredFileError when it is missing or is not JSON.
        """
        try:
            return json.loads((self.header or {})[entry])
        except (KeyError, ValueError, RecursionError) as error:
            raise malformed(
                self.path, f"'{entry}' is missing or is not JSON ({printable(repr(error), 100)})"
            ) from error


def unreadable(path: Path, error: object) -> StoredFileError:
    """The error for a file that is damaged or missing."""
    return StoredFileError(
        path,
        f"cannot be read as safetensors ({printable(error)}). The file is damaged or its download is incomplete: "
        "compare its size and sha256 with the publisher's, and download it again.",
    )


def check_file(path: Path) -> bytes:
    """The first bytes of a regular file.

    Raises: StoredFileError when it is missing, a pipe, a device or a folder, or what failed downloads leave.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoredFileError(path, "is not a regular file. Put the file itself there.")
        with path.open("rb") as file:
            beginning = file.read(64)
    except (OSError, ValueError) as error:
        if isinstance(error, StoredFileError):
            raise
        raise StoredFileError(path, f"cannot be read ({printable(error)}). Put the file there.") from error
    for mark, problem in NOT_THE_FILE.items():
        if beginning.lstrip().startswith(mark):
            raise StoredFileError(path, problem)
    return beginning


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file whose header is valid and within `HEADER_BYTES`.

    Raises: StoredFileError.
    """
    length = int.from_bytes(check_file(path)[:8], "little")
    if length > HEADER_BYTES:
        raise unreadable(path, f"its header would have {length} bytes, allowed are {HEADER_BYTES}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a whole safetensors file.

    Raises: StoredFileError when the file is missing or damaged.
    """
    with opened(path) as file:
        return file.metadata() or {}


def open_stored(path: Path) -> StoredFile:
    """The header of a safetensors file, and the shapes of its tensors.

    Raises: StoredFileError when the file is missing, damaged, or beyond the limits above.
    """
    with opened(path) as file:
        names = list(file.keys())
        if len(names) > TENSORS:
            raise StoredFileError(path, f"has {len(names)} tensors; at most {TENSORS} are read.")
        parts = {name: file.get_slice(name) for name in names}
        tensors = {name: on_meta(path, name, part.get_shape(), part.get_dtype()) for name, part in parts.items()}
        header = file.metadata() or {}

    def read(wanted: Collection[str]) -> dict[str, Tensor]:
        with opened(path) as file:
            return {name: file.get_tensor(name).clone() for name in wanted}

    return StoredFile(path, header, tensors, read)


def from_memory(path: Path, tensors: Mapping[str, Tensor]) -> StoredFile:
    """A file without a header, whose tensors are in memory already.

    Raises: StoredFileError when one of them is not stored value by value.
    """
    for name, t in tensors.items():
        if t.layout != torch.strided or t.is_quantized or t.dtype not in PRECISIONS.values():
            raise StoredFileError(path, f"contains '{printable(name)}' in a form that is not read; save it as float16.")
        if 0 in t.shape or t.ndim > DIMENSIONS or t.nbytes > t.untyped_storage().nbytes():
            raise StoredFileError(path, f"is malformed: '{printable(name)}' is {printable(tuple(t.shape))}.")

    def read(wanted: Collection[str]) -> dict[str, Tensor]:
        return {name: tensors[name].detach().clone(memory_format=torch.contiguous_format) for name in wanted}

    outline = {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in tensors.items()}
    return StoredFile(path, None, outline, read)


def on_meta(path: Path, name: str, shape: list[int], precision: str) -> Tensor:
    """A tensor of the header.

    Raises: StoredFileError when no such tensor can be used.
    """
    if 0 in shape or len(shape) > DIMENSIONS:
        found = "no values" if 0 in shape else f"{len(shape)} dimensions; at most {DIMENSIONS} are read"
        raise StoredFileError(path, f"is malformed: '{printable(name)}' has {found}.")
    if precision not in PRECISIONS:
        raise StoredFileError(path, f"contains '{printable(name)}' in precision {precision}; save it as F16 or F32.")
    return torch.empty(shape, dtype=PRECISIONS[precision], device="meta")


def open_expected(path: Path, form: str, version: str, advice: str) -> StoredFile:
    """A file of one format and version.

    Args: form, version: the values its header must have; advice: where such files come from.
    Raises: StoredFileError when the file is damaged, of another format, or of another version.
    """
    stored = open_stored(path)
    header = stored.header or {}
    found = [printable(header.get(entry), 40) for entry in ("format", "format_version")]
    if found != [form, version]:
        raise StoredFileError(
            path, f"cannot be used here: expected {form} {version}, found {' '.join(found)}. {advice}"
        )
    return stored


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a part file, then rename it: a killed process or a full disk leaves the earlier file as it was.

    Raises: OSError stating the room that is free and the room that is needed.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with replacing(path) as part:
            save_file(ready, part, metadata=dict(metadata))
    except (SafetensorError, OSError) as error:
        needed = sum(t.numel() * t.element_size() for t in ready.values()) / 2**20
        free = shutil.disk_usage(path.parent).free / 2**20
        kept = "the earlier file is unchanged" if path.exists() else "no file was written"
        raise OSError(f"Could not write {needed:.0f} MiB to '{path}' ({free:.0f} MiB free; {kept}): {error}") from error
