"""The weighted mean of adapter files of one kind, with a record of each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ..adapters.moa import MoAAdapter
from .adapter import load_adapter, read_header, save_adapter
from .errors import StoredFileError, printable
from .fingerprint import file_sha256
from .plan import Header

BASE = ("base", "base_sha256", "base_fingerprint")
"""Entries of the provenance that name the base model of the training."""


def merge_adapters(files: Sequence[Path], weights: Sequence[float], target: Path) -> dict[str, Any]:
    """Write the mean of adapters, in the precision of the first. Returns: its provenance.

    Args: weights: one for each file; they are divided by their sum.
    Raises: ValueError when there are too few files or the weights are no weights; StoredFileError when a file is damaged, no
        adapter, or of another kind or another base model than the first; OSError stating the room that is missing.
    """
    shares = normalised(weights, len(files))
    headers = [read_header(file) for file in files]
    for file, header in zip(files[1:], headers[1:], strict=True):
        check_alike(file, header, files[0], headers[0])
    licence = "; ".join(dict.fromkeys(header.licence for header in headers))
    record = {name: headers[0].provenance[name] for name in BASE if name in headers[0].provenance}
    record["merged"] = ", ".join(f"{share:.3f} × {file.name}" for file, share in zip(files, shares, strict=True))
    record |= {"data_licence": licence, "sources": [source(*each) for each in zip(files, shares, headers, strict=True)]}
    save_adapter(mean_adapter(files, shares), target, licence=licence, provenance=record)
    return record


def normalised(weights: Sequence[float], files: int) -> list[float]:
    """The weights divided by their sum.

    Raises: ValueError when they are not one for each of two or more files, or one is negative, or all are 0.
    """
    if files < 2:
        raise ValueError("a mean needs at least two adapter files.")
    if len(weights) != files:
        raise ValueError(f"there are {files} files and {len(weights)} weights. Name one weight for each file.")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise ValueError("weights must be 0 or more, and not all of them 0.")
    return [weight / sum(weights) for weight in weights]


def check_alike(file: Path, header: Header, first: Path, expected: Header) -> None:
    """Raises: StoredFileError naming what differs: a field of the config, or the base model of the training."""
    found, wanted = (asdict(each.config) for each in (header, expected))
    differing = [name for name in found if found[name] != wanted[name]]
    if differing:
        listed = ", ".join(
            f"{name} {printable(found[name], 40)} and {printable(wanted[name], 40)}" for name in differing
        )
        raise StoredFileError(file, f"is an adapter of another kind than '{printable(first)}': {listed}.")
    for name in BASE[1:]:
        bases = [each.provenance.get(name) for each in (header, expected)]
        if all(bases) and bases[0] != bases[1]:
            raise StoredFileError(
                file, f"was trained for another base model than '{printable(first)}': their {name} differ."
            )


def mean_adapter(files: Sequence[Path], shares: Sequence[float]) -> MoAAdapter:
    """The mean, computed in float32.

    Raises: StoredFileError when a file does not hold the tensors that its header describes, or has NaN.
    """
    mean: dict[str, Tensor] = {}
    first = load_adapter(files[0])
    for file, share in zip(files, shares, strict=True):
        adapter = first if file is files[0] else load_adapter(file)
        for name, tensor in adapter.state_dict().items():
            mean[name] = mean.get(name, 0) + share * tensor.float()
    first.load_state_dict(mean)
    return first


def source(file: Path, share: float, header: Header) -> dict[str, Any]:
    """A file in the provenance of the mean."""
    stated = {"licence": header.licence, "provenance": header.provenance}
    return {"file": file.name, "sha256": file_sha256(file), "weight": share, **stated}
