"""Training runs in processes of their own, to be killed. A fork server imports this once; every run starts from there."""

from __future__ import annotations

import multiprocessing
import os
import socket
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


def run(arguments: list[str], variables: dict[str, str], shown: Path | None) -> None:
    os.environ.update(variables)
    if shown is not None:
        with shown.open("a") as file:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(file.fileno(), stream.fileno())
    train.main(arguments)


def context() -> ForkServerContext:
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    return made


def start(
    server: ForkServerContext, config: Path, *options: str, shown: Path | None = None, **variables: str
) -> ForkServerProcess:
    """`dev.py train CONFIG OPTIONS` with these environment variables.

    Args: shown: a file to which its output is added. Without one it goes where the fork server's goes.
    """
    process = server.Process(target=run, args=([str(config), *options], variables, shown))
    process.start()
    return process


def start_two(server: ForkServerContext, config: Path, *options: str, shown: Path) -> list[ForkServerProcess]:
    """Two processes that share every step, with the variables that Accelerate's launcher sets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(server, config, *options, shown=shown, RANK=rank, LOCAL_RANK=rank, ACCELERATE_USE_CPU="true", **shared)
        for rank in "01"
    ]
