"""Names of files and folders that users enter, and the list of the folders that can be trained on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import subjects
from comfyui_moa.nodes.host.files.folders import inside, register_adapter_folders
from comfyui_moa.nodes.host.files.input_folders import DEPTH, FolderListing
from comfyui_moa.nodes.library import MoASaveSubject
from comfyui_moa.nodes.sockets import Subject

BAD = {
    "": "is empty", " ": "is empty", "friends/": "is empty", ".": "begins with a dot", ".anna": "begins with a dot",
    "friends/.anna": "begins with a dot", "../anna": "begins with a dot", "a" * 241: "longer than 200 bytes",
    "é" * 101: "longer than 200 bytes", "a\0b": "control characters", "a\nb": "control characters",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD, ids=lambda name: repr(name[:9]))
def test_names_of_no_visible_file_are_refused_before_anything_is_written(base: Path, name: str):
    register_adapter_folders()
    subject = Subject("woman", 1, subjects.picture(1), subjects.ENCODER)
    before = {path for path in base.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"^The name '.*' .*{BAD[name]}.* Use a plain name, or folder/name"):
        MoASaveSubject.execute(subject, name)
    with pytest.raises(ValueError, match=f"^The name '.*' .*{BAD[name]}"):
        inside(str(base), name)
    assert {path for path in base.rglob("*") if path.is_file()} == before


def test_a_long_name_in_a_folder_is_saved(base: Path):
    register_adapter_folders()
    subject = Subject("woman", 1, subjects.picture(1), subjects.ENCODER)
    path = Path(MoASaveSubject.execute(subject, "é" * 100 + "/" + "a" * 200).result[0])
    assert path.is_file() and path.name == "a" * 200 + "_00001_.safetensors"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the calls of `os.stat` and `os.scandir`."""
    counted = {"stat": 0, "scandir": 0}

    def counting(name: str):
        call = getattr(os, name)

        def counted_call(*args, **kwargs):
            counted[name] += 1
            return call(*args, **kwargs)

        return counted_call

    for name in counted:
        monkeypatch.setattr(os, name, counting(name))
    return counted


def test_unchanged_folders_are_not_read_again(tmp_path: Path, looks: dict[str, int]):
    for first in range(4):
        for second in range(5):
            (tmp_path / f"a{first}" / f"b{second}").mkdir(parents=True)
    listing = FolderListing()
    looks.update(stat=0, scandir=0)
    found = list(listing.below(str(tmp_path)))
    assert len(found) == 4 + 20 and looks == {"stat": 1 + 4 + 20, "scandir": 1 + 4 + 20}
    looks.update(stat=0, scandir=0)
    assert list(listing.below(str(tmp_path))) == found and looks == {"stat": 25, "scandir": 0}
    (tmp_path / "a1" / "b9").mkdir()
    os.utime(tmp_path / "a1", ns=(1, 1))
    looks.update(stat=0, scandir=0)
    assert set(listing.below(str(tmp_path))) - set(found) == {"a1/b9"} and looks["scandir"] == 2


def test_the_depth_is_bounded_and_links_and_hidden_folders_are_left_out(tmp_path: Path, looks: dict[str, int]):
    deep = tmp_path / "1" / "2" / "3" / "4"
    for number in range(100):
        (deep / str(number)).mkdir(parents=True)
    (tmp_path / ".hidden" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    looks.update(stat=0, scandir=0)
    assert list(FolderListing().below(str(tmp_path))) == ["1", "1/2", "1/2/3"]
    assert looks == {"stat": DEPTH, "scandir": DEPTH}
    assert list(FolderListing().below(str(tmp_path / "absent"))) == []
