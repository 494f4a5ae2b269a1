"""Which build of torch `.venv` gets, and how torchvision and torchaudio come to work beside it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from .venv import VENV, EnvironmentFailure, imports, pip, python

TORCH, COMPANIONS = "torch==2.13.0", ["torchvision==0.28.0", "torchaudio==2.11.0"]
WANTED = TORCH + " ".join(COMPANIONS) + platform.platform()
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
WINDOWS_CUDA_INDEX = "https://download.pytorch.org/whl/cu130"
FALLBACK = Path(__file__).with_name("cpu_torch_extras.py")


def install() -> None:
    """The three packages as fit this machine. A torch that is installed already was chosen on purpose and stays.

    All three come before the host's requirements: those name torchvision, and pip would choose one that brings a torch of its own.
    """
    if not imports("torch"):
        _pip("torch", TORCH)
    if not _companions_installed():
        _pip("torchvision and torchaudio", "--no-deps", *COMPANIONS)


def make_companions_work() -> None:
    """Both must be importable, the host needs them at start; where their libraries do not fit, the fallback is used.

    Raises:
        EnvironmentFailure: even so they are not.
    """
    if not imports("torchvision", "torchaudio"):
        packages = _site_packages()
        shutil.copyfile(FALLBACK, packages / f"_{FALLBACK.name}")
        (packages / f"_{FALLBACK.stem}.pth").write_text(f"import _{FALLBACK.stem}\n", encoding="utf-8")
    if not imports("torchvision", "torchaudio"):
        raise EnvironmentFailure(
            f"torchvision or torchaudio does not work with the torch in {VENV}. Delete that folder and run again, or "
            "install matching versions of the three into it by hand."
        )


def _companions_installed() -> bool:
    packages = _site_packages()
    return all((packages / name).is_dir() for name in ("torchvision", "torchaudio"))


def _pip(what: str, *packages: str) -> None:
    """From the index for this machine, or else from the default index."""
    index = _index()
    if index:
        try:
            return pip(f"{what} from {index}", "--index-url", index, *packages)
        except EnvironmentFailure as error:
            print(f"{error}\nTrying the default package index instead.", flush=True)
    pip(what, *packages)


def _index() -> str | None:
    """Where the build for this machine lies, if the default index has another one and that place can be reached."""
    if sys.platform == "darwin":
        return None
    nvidia = _has_nvidia()
    if nvidia == (sys.platform != "win32"):
        return None  # the default index: CUDA builds for Linux, CPU builds for Windows
    index = WINDOWS_CUDA_INDEX if nvidia else CPU_INDEX
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=10):
            return index
    except OSError:
        return None


def _has_nvidia() -> bool:
    tool = shutil.which("nvidia-smi")
    return tool is not None and b"GPU" in subprocess.run([tool, "-L"], capture_output=True).stdout


def _site_packages() -> Path:
    command = [str(python()), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
