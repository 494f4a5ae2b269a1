"""Blends of two subjects, and subjects in files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moa_attention.formats.errors import StoredFileError
from moa_attention.formats.subject import StoredSubject, load_subject, save_subject
from moa_attention.subjects.mixing import blend

ONE, OTHER = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]])


@pytest.mark.parametrize("path", ["straight", "sphere"])
def test_the_ends_are_the_subjects_themselves(path):
    assert torch.equal(blend(ONE, OTHER, 0.0, path), ONE)
    assert torch.equal(blend(ONE, OTHER, 1.0, path), OTHER)


def test_the_middle():
    assert torch.allclose(blend(ONE, OTHER, 0.5, "straight"), torch.tensor([[1.0, 2.0, 0.0]]))
    assert torch.allclose(blend(ONE, OTHER, 0.5, "sphere"), torch.tensor([[1.0, 1.0, 0.0]]) * 3 / 2**0.5)
    assert torch.allclose(blend(ONE, 2 * ONE, 0.25, "sphere"), 1.25 * ONE)


def test_on_the_sphere_lengths_are_kept():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(1, 768, generator=generator), dim=-1) for _ in range(2))
    for amount in (0.1, 0.5, 0.8):
        between = blend(a, b, amount, "sphere")
        assert float(between.norm()) == pytest.approx(1, abs=1e-5)
        assert float((between * a).sum()) == pytest.approx(
            float(torch.cos(amount * torch.acos((a * b).sum()))), abs=1e-5
        )


@pytest.mark.parametrize(
    "thumbnail", [None, torch.arange(48, dtype=torch.uint8).reshape(4, 4, 3)], ids=["none", "some"]
)
def test_a_file_gives_back_what_was_saved(tmp_path: Path, thumbnail: torch.Tensor | None):
    saved = StoredSubject(torch.randn(1, 8), "features:abc", "old man", 2, 4, thumbnail)
    save_subject(saved, tmp_path / "a.safetensors")
    found = load_subject(tmp_path / "a.safetensors")
    assert torch.equal(found.features, saved.features) and found[1:4] == saved[1:4]
    shown = found.thumbnail
    assert shown is None if thumbnail is None else shown is not None and torch.equal(shown, thumbnail)


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(StoredFileError, match="cannot be read as safetensors"):
        load_subject(path)
    save_file({"features": torch.zeros(1, 2)}, path, metadata={"format": "moa-adapter", "format_version": "1"})
    with pytest.raises(StoredFileError, match="expected moa-subject 1, found moa-adapter 1"):
        load_subject(path)
    save_file({"features": torch.zeros(1, 2)}, path, metadata={"format": "moa-subject", "format_version": "1"})
    with pytest.raises(StoredFileError, match="malformed header"):
        load_subject(path)
