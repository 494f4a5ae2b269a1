"""A training run that is killed, that is shared among processes, whose disk fills up."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import config, draw, setup

from moa_attention.files import write_tensors
from moa_attention.training.config import TrainConfig
from moa_attention.training.loop import train
from moa_attention.training.lots import lots
from moa_attention.training.workers import Alone

TOY = Path(__file__).with_name("toy.py")
STEPS = 400


def start(folder: Path, steps: int, **variables: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(TOY), str(folder / "state"), str(folder / "log"), str(steps)]
    return subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def logged(folder: Path) -> dict[int, dict[str, float]]:
    """The numbers of every step, as it was done last; a line being written is none yet."""
    lines = (folder / "log").read_text().rpartition("\n")[0].splitlines()
    return {row.pop("step"): row for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    finish(start(folder, STEPS))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no kill -9")
def test_killed_twenty_times_it_ends_as_if_it_had_never_been(tmp_path: Path, unbroken: Path):
    chance = random.Random(0)
    for kill in range(20):
        process = start(tmp_path, STEPS)
        before = size(tmp_path / "log")
        while process.poll() is None and size(tmp_path / "log") == before:
            time.sleep(0.001)
        until = time.monotonic() + chance.random() * 0.1
        # A quick machine would be through before the twentieth.
        while time.monotonic() < until and max(logged(tmp_path)) < STEPS * (kill + 1) // 25:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    finish(start(tmp_path, STEPS))
    assert logged(tmp_path) == logged(unbroken)
    ours, theirs = load_file(tmp_path / "state"), load_file(unbroken / "state")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_two_processes_have_the_losses_of_one(tmp_path: Path, unbroken: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    both = [start(tmp_path, 6, RANK=rank, LOCAL_RANK=rank, **shared) for rank in "01"]
    for process in both:
        finish(process)
    alone, together = logged(unbroken), logged(tmp_path)
    assert set(together) == set(range(1, 7))
    for step, numbers in together.items():
        assert numbers == pytest.approx(alone[step], rel=1e-3, abs=1e-6)


def test_micro_batches_have_the_losses_of_one_batch(tmp_path: Path):
    runs = []
    for micro in (0, 1, 2):
        adapter, base = setup()
        numbers: list[dict[str, float]] = []
        settings = config(4, batch_size=4, micro_batch=micro)
        train(adapter, base, draw, settings, tmp_path / f"{micro}", lambda _, n, __, kept=numbers: kept.append(n))
        runs.append(numbers)
    for whole, ones, twos in zip(*runs, strict=True):
        assert ones == pytest.approx(whole, rel=1e-4, abs=1e-6)
        assert twos == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="batch_size 10 cannot be divided among 1 processes in micro-batches of 4"):
        next(lots(0, TrainConfig(steps=1, batch_size=10, micro_batch=4), Alone()))


def test_a_full_disk_says_so_and_keeps_the_file_before(tmp_path: Path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "state"
    write_tensors({"x": torch.ones(4)}, path, {"step": "1"})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OSError, match="Could not write 1 MiB .* MiB free; the file that was there is untouched"):
            write_tensors({"x": torch.ones(1 << 18)}, path, {"step": "2"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert torch.equal(load_file(path)["x"], torch.ones(4))
    assert list(tmp_path.iterdir()) == [path]
