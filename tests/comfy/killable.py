"""Training runs in processes of their own, to be killed. A fork server imports this once; every run starts from there."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from devtools import host as hosts
from devtools.in_process import import_host, import_pack

if "comfy.cli_args" not in sys.modules:
    import_host(hosts.find(), base=Path(tempfile.mkdtemp(prefix="moa-killed-")))
import_pack()

from comfyui_moa.recipes.adapter import train  # noqa: E402


def run(config: str) -> None:
    train.main([config])


def context() -> ForkServerContext:
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    return made


def start(server: ForkServerContext, config: Path) -> ForkServerProcess:
    process = server.Process(target=run, args=(str(config),))
    process.start()
    return process
