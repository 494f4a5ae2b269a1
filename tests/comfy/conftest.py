"""Imports the real host into this process and our pack as `comfyui_moa`; starts a server when a test requests it."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT), str(HERE)]

from devtools import host as hosts  # noqa: E402
from devtools.in_process import import_host, import_pack  # noqa: E402
from devtools.server import Server  # noqa: E402

BASE = Path(tempfile.mkdtemp(prefix="moa-host-"))
"""Base folder of the in-process host: models, inputs and outputs of tests never enter a real tree."""

import_host(hosts.find(), base=BASE)
PACK = import_pack()
"""Here, before any test file: these import it by its name."""

collect_ignore = [] if importlib.util.find_spec("comfy.multigpu") else ["test_multigpu.py"]
"""The oldest releases use one GPU only."""
if "IPADAPTER_PLUS" not in os.environ:
    collect_ignore += [
        "test_real_pack.py",
        "test_real_examples.py",
    ]  # they compare with a checkout that is not part of this project


def pytest_report_header() -> str:
    return f"ComfyUI {hosts.version(hosts.find())}"


@pytest.fixture(scope="session")
def pack():
    """Our pack as the package `comfyui_moa`; its core is `pack.moa_attention`, the only copy in this process."""
    return PACK


@pytest.fixture(scope="session")
def base() -> Path:
    """Base folder of the in-process host (`models/`, `input/`, ...)."""
    return BASE


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real ComfyUI server on a free loopback port, on CPU, with our pack and that of the tests among its custom nodes."""
    folder = tmp_path_factory.mktemp("server")
    with Server(hosts.find(), Path(sys.executable), folder, packs=[ROOT, HERE / "tiny_pack"], cpu=True) as running:
        yield running


os.environ.setdefault("HF_HUB_OFFLINE", "1")
