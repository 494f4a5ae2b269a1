"""Files are replaced whole or stay as they were, and are named by their bytes."""

import hashlib
from pathlib import Path

import pytest

from moa_attention.formats.atomic import replacing
from moa_attention.formats.fingerprint import file_sha256


def test_a_block_that_ends_replaces_the_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path):
    content = bytes(range(256)) * (1 << 17)  # 32 MiB: more than one block
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
