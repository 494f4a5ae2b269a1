"""The short form of the sweep over changed files (tests/fuzz): what reads files without ComfyUI, with a fixed seed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moa_attention.formats.errors import StoredFileError

sys.path.append(str(Path(__file__).resolve().parents[1] / "fuzz"))

import attempts  # noqa: E402
import mutations  # noqa: E402
from core_readers import core_readers  # noqa: E402

CHANGES = 40


@pytest.mark.parametrize("reader", core_readers(), ids=lambda reader: reader.name)
def test_changed_files_are_loaded_or_refused_by_a_sentence(reader: attempts.Reader, tmp_path: Path):
    counted, problems = attempts.sweep(reader, tmp_path, 0, range(CHANGES))
    assert not problems
    assert sum(counted.values()) == CHANGES
    assert counted["refused"] or not reader.names_file


def reader_that(read: Callable[[Path], object]) -> attempts.Reader:
    return attempts.Reader("a reader", "file", lambda folder: None, read, StoredFileError, mutations.RAW)


def raises(error: Exception) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        raise error

    return read


def test_the_sweep_finds_what_it_looks_for(tmp_path: Path):
    """Raw errors, messages without the file or of several lines, and memory, which is measured by the largest size so far."""
    path = tmp_path / "file"
    kept: list[torch.Tensor] = []
    outcomes = {
        "loaded": lambda folder: None,
        "refused": raises(StoredFileError(path, "is damaged.")),
        "raw KeyError": raises(KeyError("a")),
        "message without the file": raises(StoredFileError(tmp_path / "other", "is damaged.")),
        "message of several lines": raises(StoredFileError(path, "is\ndamaged.")),
        "large: ": lambda folder: kept.append(torch.ones((round(attempts.memory()) + 300) * 2**18)),
    }
    for wanted, read in outcomes.items():
        assert attempts.attempt(reader_that(read), tmp_path, b"x").startswith(wanted)
    assert len(kept) == 1
