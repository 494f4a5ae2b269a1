"""`dev.py train` killed at random moments, twenty times: it ends like a run that was never killed."""

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


def write_config(output: Path, folder: Path, save_every: int = 3) -> Path:
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
        save_every = {save_every}
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
@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals between processes")
def test_a_signal_saves_the_state_and_ends_the_command_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither signal loses a step, and what follows equals an unbroken run; a finished run prints that it is finished and does nothing."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    folder, server = pictures.kohya(tmp_path / "boxes"), killable.context()
    output, unbroken = tmp_path / "stopped", tmp_path / "unbroken"
    config = write_config(output, folder, save_every=1000)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        text = tmp_path / f"{code}.txt"
        process, before = killable.start(server, config, shown=text), size(output / "log.jsonl")
        while process.is_alive() and size(output / "log.jsonl") == before:
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == code
        done = max(losses(output))
        shown = text.read_text()
        assert f"train: stopped. The same command resumes after step {done}." in shown
        assert "Traceback" not in shown
    for path in (config, write_config(unbroken, folder, save_every=1000)):
        process = killable.start(server, path)
        process.join()
        assert process.exitcode == 0
    rows = [json.loads(line)["step"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(1, STEPS + 1))
    assert losses(output) == losses(unbroken)
    ours, theirs = (load_file(each / "adapter.safetensors") for each in (output, unbroken))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    text = tmp_path / "finished.txt"
    process = killable.start(server, config, shown=text)
    process.join()
    assert process.exitcode == 0 and f"This run is finished: its {STEPS} steps are done" in text.read_text()
    config.write_text(config.read_text().replace("rank = 2", "rank = 3"))
    text = tmp_path / "refused.txt"
    process = killable.start(server, config, shown=text)
    process.join()
    refusal = text.read_text()
    assert process.exitcode == 1 and len(refusal.splitlines()) == 1
    assert "cannot be resumed with other settings of this kind: adapter.rank 2, now 3." in refusal


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no kill -9")
def test_a_command_killed_twenty_times_ends_like_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the only search path of the fork server
    folder, server, chance = pictures.kohya(tmp_path / "boxes"), killable.context(), random.Random(0)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for kill in range(20):
        process = killable.start(server, write_config(killed, folder))
        before = size(killed / "log.jsonl")
        while process.is_alive() and size(killed / "log.jsonl") == before:
            time.sleep(0.01)
        until = time.monotonic() + chance.random() * 0.3
        # A fast machine would finish before the twentieth.
        while time.monotonic() < until and max(losses(killed), default=0) < STEPS * (kill + 1) // 25:
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
