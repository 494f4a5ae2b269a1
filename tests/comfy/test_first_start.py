"""The first start: the folder of adapters exists, the example pictures are in the input folder, and nothing is overwritten."""

import logging
from pathlib import Path

import folder_paths
import pytest
import subjects  # noqa: F401  (imports the pack)
from comfyui_moa.nodes.host.files import first_start


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(tmp_path / "models" / name)])
    return tmp_path


def test_an_empty_host_gets_the_folder_and_the_pictures(folders: Path):
    first_start.prepare_first_start()
    assert (folders / "models" / "moa").is_dir()
    for name in ("moa_man.png", "moa_woman.png", "moa_example/person_1.png", "moa_example/person_1.txt"):
        assert (folders / "input" / name).read_bytes() == (first_start.EXAMPLE_PICTURES / name).read_bytes()


def test_a_picture_of_that_name_is_kept(folders: Path):
    (folders / "input").mkdir()
    mine = folders / "input" / "moa_man.png"
    mine.write_bytes(b"mine")
    first_start.prepare_first_start()
    assert mine.read_bytes() == b"mine"
    assert (folders / "input" / "moa_woman.png").is_file()


def test_a_folder_that_cannot_be_written_to_is_reported(folders: Path, caplog: pytest.LogCaptureFixture):
    (folders / "input").write_bytes(b"a file where the folder belongs")
    with caplog.at_level(logging.WARNING):
        first_start.prepare_first_start()
    assert "example pictures are not in the input folder" in caplog.text
