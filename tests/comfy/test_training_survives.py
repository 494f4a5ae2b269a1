"""`dev.py train` killed at random moments, twenty times: it ends as if it had never been."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import killable
import pictures
import pytest
import torch
from safetensors.torch import load_file

STEPS = 60


def write_config(output: Path, folder: Path) -> Path:
    path = output.with_suffix(".toml")
    path.write_text(
        f"""
        output = "{output.as_posix()}"
        models.checkpoint = "moa-mini"
        data = {{ folder = "{folder.as_posix()}", licence = "CC0-1.0", side = 128 }}
        adapter.rank = 2
        validation.every = 0
        [train]
        steps = {STEPS}
        batch_size = 2
        precision = "float32"
        ema_decay = 0.9
        save_every = 3
        """
    )
    return path


def losses(output: Path) -> dict[int, float]:
    """Of every step, as it was done last; a line being written is none yet."""
    rows = map(json.loads, (output / "log.jsonl").read_text().rpartition("\n")[0].splitlines())
    return {row["step"]: row["loss"] for row in rows}


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no kill -9")
def test_the_command_killed_twenty_times_ends_as_if_it_had_never_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the fork server looks nowhere else
    folder, server, chance = pictures.kohya(tmp_path / "boxes"), killable.context(), random.Random(0)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for kill in range(20):
        process = killable.start(server, write_config(killed, folder))
        before = size(killed / "log.jsonl")
        while process.is_alive() and size(killed / "log.jsonl") == before:
            time.sleep(0.01)
        until = time.monotonic() + chance.random() * 0.3
        # A quick machine would be through before the twentieth.
        while time.monotonic() < until and max(losses(killed)) < STEPS * (kill + 1) // 25:
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
    for output in (killed, unbroken):
        process = killable.start(server, write_config(output, folder))
        process.join()
        assert process.exitcode == 0
    assert losses(killed) == losses(unbroken)
    for name in ("adapter.safetensors", "state.safetensors"):
        ours, theirs = load_file(killed / name), load_file(unbroken / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
