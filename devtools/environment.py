"""The development environment `.venv`: torch as fits the machine, a host's requirements, our tools.

Each part is installed again only when what it was asked for changes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

from . import host as hosts

ROOT, HERE = hosts.ROOT, hosts.HERE
VENV = ROOT / ".venv"
STAMP = VENV / "moa-stamp.json"
"""What was installed, by part: the hash of what it was asked for."""
TORCH, COMPANIONS = "torch==2.13.0", ["torchvision==0.28.0", "torchaudio==2.11.0"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
WINDOWS_CUDA_INDEX = "https://download.pytorch.org/whl/cu130"
OURS_TO_CHOOSE = ("torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs")
"""Lines of a host's requirements that we leave out: chosen per machine, or of no use without a person at the page."""


class EnvironmentFailure(RuntimeError):
    """The environment could not be made; the text says what to do."""


def python() -> Path:
    """The interpreter of `.venv`."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure(*extras: str) -> Path:
    """Make `.venv` fit to run the host and the named extras of pyproject.toml; returns the host's folder.

    An existing ComfyUI is only read: its requirements go into our environment, never ours into its.
    """
    _make_venv()
    existing = hosts.existing()
    host = existing or hosts.fetch(python())
    if existing is None:
        names = ["requirements-host.txt", "constraints.txt"]
        wanted = "".join((HERE / name).read_text(encoding="utf-8") for name in names)
        arguments = ["-r", str(HERE / names[0]), *_constraints()]
    else:
        lines = (existing / "requirements.txt").read_text(encoding="utf-8").splitlines()
        needed = [
            line for line in lines if line.strip() and not line.startswith("#") and _name(line) not in OURS_TO_CHOOSE
        ]
        wanted, arguments = "\n".join(needed), needed
    _once("torch", TORCH + " ".join(COMPANIONS) + platform.platform(), _install_torch)
    _once("host", wanted, lambda: _pip("the host's requirements", *arguments))
    _once("companions", wanted + TORCH, _repair_companions)
    for extra in extras:
        packages = _extra(extra)
        _once(extra, " ".join(packages), lambda packages=packages: _pip("the tools", *packages, *_constraints()))
    return host


def has_accelerator() -> bool:
    """Whether torch in `.venv` can use a GPU."""
    code = "import torch; raise SystemExit(not (torch.cuda.is_available() or torch.backends.mps.is_available()))"
    return subprocess.run([str(python()), "-c", code], capture_output=True).returncode == 0


def _make_venv() -> None:
    if python().is_file():
        return
    print("Making .venv ...", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise EnvironmentFailure(
            "Python could not make a virtual environment (above). On Debian and Ubuntu: apt install python3-venv"
        )


def _once(part: str, wanted: str, action: Callable[[], None]) -> None:
    """Run `action` unless it was done for the same input before."""
    done = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    key = hashlib.sha256(wanted.encode()).hexdigest()
    if done.get(part) == key:
        return
    action()
    STAMP.write_text(json.dumps({**done, part: key}, indent=1), encoding="utf-8")


def _pip(what: str, *arguments: str) -> None:
    print(f"Installing {what} ...", flush=True)
    if subprocess.run(
        [str(python()), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
    ).returncode:
        raise EnvironmentFailure(
            f"pip could not install {what} (above). Correct the cause and run the same command again."
        )


def _constraints() -> list[str]:
    return ["-c", str(HERE / "constraints.txt")] if sys.version_info >= (3, 11) else []


def _extra(name: str) -> list[str]:
    """The packages of one optional dependency group of pyproject.toml (Python 3.10 has no TOML reader)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"pyproject.toml has no extra {name}"
    return ast.literal_eval(found.group(1))


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def _install_torch() -> None:
    if _imports("torch"):
        return  # somebody chose one for this environment: leave it
    index = _torch_index()
    if index:
        try:
            _pip(f"torch from {index}", "--index-url", index, TORCH)
            _pip("torchvision and torchaudio", "--index-url", index, "--no-deps", *COMPANIONS)
            return
        except EnvironmentFailure as error:
            print(f"{error}\nTrying the default package index instead.", flush=True)
    _pip("torch", TORCH)
    _pip("torchvision and torchaudio", "--no-deps", *COMPANIONS)


def _torch_index() -> str | None:
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


def _imports(*modules: str) -> bool:
    return subprocess.run([str(python()), "-c", "import " + ", ".join(modules)], capture_output=True).returncode == 0


def _repair_companions() -> None:
    """The host imports both at start. Where their libraries do not fit this torch, use their Python code alone."""
    if _imports("torchvision", "torchaudio"):
        return
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(
        subprocess.run([str(python()), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    )
    if not (packages / "torchvision").is_dir() or not (packages / "torchaudio").is_dir():
        _pip("torchvision and torchaudio", "--no-deps", *COMPANIONS)
    if not _imports("torchvision"):
        shutil.copyfile(HERE / "cpu_torch_extras.py", packages / "_cpu_torch_extras.py")
        (packages / "_cpu_torch_extras.pth").write_text("import _cpu_torch_extras\n", encoding="utf-8")
    if not _imports("torchaudio"):
        for library in [
            *(packages / "torchaudio" / "lib").glob("*.so"),
            *(packages / "torchaudio" / "lib").glob("*.pyd"),
        ]:
            library.unlink()
    if not _imports("torchvision", "torchaudio"):
        raise EnvironmentFailure(
            f"torchvision or torchaudio does not work with the torch in {VENV}. Delete that folder and run again, or "
            "install matching versions of the three into it by hand."
        )
