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

from moa_attention.formats.tensors import write_tensors
from moa_attention.training.config import TrainConfig
from moa_attention.training.loop import train
from moa_attention.training.lots import Lot, generator_for, lots
from moa_attention.training.objective import Objective
from moa_attention.training.workers import Alone

TOY = Path(__file__).with_name("toy.py")
STEPS = 400


def start(folder: Path, steps: int, batch: int = 4, micro: int = 0, **variables: str) -> "subprocess.Popen[bytes]":
    numbers = map(str, (steps, batch, micro))
    command = [sys.executable, str(TOY), str(folder / "state"), str(folder / "log"), *numbers]
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
def test_a_run_killed_twenty_times_ends_like_an_unbroken_one(tmp_path: Path, unbroken: Path):
    chance = random.Random(0)
    for kill in range(20):
        process = start(tmp_path, STEPS)
        before = size(tmp_path / "log")
        while process.poll() is None and size(tmp_path / "log") == before:
            time.sleep(0.001)
        until = time.monotonic() + chance.random() * 0.1
        # A fast machine would finish before the twentieth.
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


def share(folder: Path, steps: int, batch: int, micro: int) -> None:
    """Train in two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    both = [start(folder, steps, batch, micro, RANK=rank, LOCAL_RANK=rank, **shared) for rank in "01"]
    for process in both:
        finish(process)


def test_two_processes_that_accumulate_have_the_losses_of_one_batch(tmp_path: Path):
    """Also where their examples have other numbers of subjects, and on another number of processes afterwards.

    The first step's numbers are sums of the same examples in another order. Later steps amplify their last bits.
    """
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    finish(start(alone, 6, batch=6))
    share(together, 4, batch=6, micro=1)
    assert logged(together)[1] == pytest.approx(logged(alone)[1], rel=1e-6, abs=1e-6)
    finish(start(together, 6, batch=6, micro=2))
    found = logged(together)
    assert list(found) == list(range(1, 7))
    for step, numbers in logged(alone).items():
        assert numbers["router"] > 1 and abs(numbers["object"]) > 1e-5
        assert found[step] == pytest.approx(numbers, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("dominant", ["router_weight", "object_weight", "consistency_weight"])
def test_gradients_of_parts_of_a_batch_average_to_those_of_the_whole(dominant: str):
    """What processes and accumulation do: each part's gradient has the weight of its number of examples."""

    def gradients(parts: list[range]) -> tuple[list[torch.Tensor], dict[str, float]]:
        adapter, base = setup()
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        objective, means = Objective(adapter, base, config(1, batch_size=6, **{dominant: 10.0})), dict[str, float]()
        for places in parts:
            lot = Lot(0, places, [generator_for(0, 0, place) for place in places])
            loss, values = objective(draw(lot), lot.generators)
            (loss / len(parts)).backward()
            for name, value in values.items():
                means[name] = means.get(name, 0) + float(value) / len(parts)
        return [p.grad for p in adapter.parameters() if p.grad is not None], means

    (whole, losses), (divided, parts) = gradients([range(6)]), gradients([range(3), range(3, 6)])
    assert parts == pytest.approx(losses, rel=1e-6, abs=1e-6)
    scale = max(float(g.abs().max()) for g in whole)
    assert scale > 1e-3 and len(whole) > 10
    for one, other in zip(whole, divided, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6 * scale)


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


def test_a_full_disk_is_reported_and_keeps_the_file_before(tmp_path: Path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "state"
    write_tensors({"x": torch.ones(4)}, path, {"step": "1"})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OSError, match="Could not write 1 MiB .* MiB free; the earlier file is unchanged"):
            write_tensors({"x": torch.ones(1 << 18)}, path, {"step": "2"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert torch.equal(load_file(path)["x"], torch.ones(4))
    assert list(tmp_path.iterdir()) == [path]
