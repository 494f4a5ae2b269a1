"""The development environment: torch as fits the machine, a host's requirements, our tools.

Each part is installed again only when what it was asked for changes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from . import host as hosts
from . import torch_build, venv

REQUIREMENTS = hosts.HERE / "requirements-host.txt"
CONSTRAINTS = hosts.HERE / "constraints.txt"
STAMP = venv.VENV / "moa-stamp.json"
"""What was installed, by part: the hash of what it was asked for."""
OURS_TO_CHOOSE = ("torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs")
"""Lines of a host's requirements that we leave out: chosen per machine, or of no use without a person at the page."""


def ensure(*groups: str, release: str | None = None) -> Path:
    """Make `.venv` fit to run the host, our client of it and the named groups of packages; returns the host's folder.

    An existing ComfyUI is only read: its requirements go into our environment, never ours into its.

    Args: release: a version of `hosts.releases()`, which is used even if there is an existing ComfyUI. The default
        release's requirements serve all of them.
    """
    venv.make()
    existing = None if release else hosts.existing()
    host = existing or hosts.fetch(venv.python(), release or hosts.DEFAULT)
    needed = [*_requirements(existing / "requirements.txt" if existing else REQUIREMENTS), *packages("client")]
    wanted = " ".join(needed) + CONSTRAINTS.read_text(encoding="utf-8")
    _once("torch", torch_build.WANTED, torch_build.install)
    _once("host", wanted, lambda: venv.pip("the host's requirements", *needed, *([] if existing else _constraints())))
    _once("companions", wanted + torch_build.TORCH, torch_build.make_companions_work)
    for group in groups:
        chosen = packages(group)
        _once(group, " ".join(chosen), lambda chosen=chosen: venv.pip("the tools", *chosen, *_constraints()))
    return host


def packages(name: str) -> list[str]:
    """One list of packages in pyproject.toml, an extra or a dependency group (Python 3.10 has no TOML reader)."""
    text = (hosts.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"pyproject.toml has no {name}"
    return ast.literal_eval(found.group(1))


def _requirements(file: Path) -> list[str]:
    """The lines of a host's requirements that we install."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#") and _name(line) not in OURS_TO_CHOOSE]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def _constraints() -> list[str]:
    return ["-c", str(CONSTRAINTS)] if sys.version_info >= (3, 11) else []


def _once(part: str, wanted: str, action: Callable[[], None]) -> None:
    """Run `action` unless it was done for the same input before."""
    done = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    key = hashlib.sha256(wanted.encode()).hexdigest()
    if done.get(part) == key:
        return
    action()
    STAMP.write_text(json.dumps({**done, part: key}, indent=1), encoding="utf-8")
