"""The virtual environment `.venv`: where its Python is, how packages get into it, how a program runs in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from .host import ROOT

VENV = ROOT / ".venv"


class EnvironmentFailure(RuntimeError):
    """The environment could not be made; the message contains the remedy."""


def python() -> Path:
    """The interpreter of `.venv`."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make() -> None:
    """Create `.venv` unless it is there.

    Raises:
        EnvironmentFailure: this Python cannot.
    """
    if python().is_file():
        return
    print("Creating .venv ...", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise EnvironmentFailure(
            "Python could not create a virtual environment (see above). On Debian and Ubuntu, run: apt install python3-venv"
        )


def pip(what: str, *arguments: str) -> None:
    """`pip install` with these arguments; `what` names the packages for the person who waits.

    Raises:
        EnvironmentFailure: pip failed; its own message stands above ours.
    """
    print(f"Installing {what} ...", flush=True)
    command = [str(python()), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
    if subprocess.run(command).returncode:
        raise EnvironmentFailure(
            f"pip could not install {what} (see above). Correct the cause and run the same command again."
        )


def imports(*modules: str) -> bool:
    """Whether all of these can be imported in `.venv`."""
    return subprocess.run([str(python()), "-c", "import " + ", ".join(modules)], capture_output=True).returncode == 0


def run(*arguments: str, cwd: Path | None = None, **variables: str) -> int:
    """Run the interpreter of `.venv` with more environment variables; returns its exit code.

    Ctrl-C reaches that program, too, and is its own to handle: we wait for its end. SIGTERM, which a scheduler or a closing
    machine sends to us alone, is passed on.
    """
    with subprocess.Popen([str(python()), *arguments], cwd=cwd, env={**os.environ, **variables}) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)
