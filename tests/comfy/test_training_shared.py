"""`dev.py train` in two processes: the recipe of the paper scaled down, and a process that is lost."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import killable
import pictures
import pytest
from comfyui_moa.moa_attention.formats.adapter import read_header
from comfyui_moa.moa_attention.training.saved.settings import read_run

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "recipes" / "adapter" / "paper.toml"
TINY = {
    "models.checkpoint": "moa-mini", "models.clip_vision": "", "data.side": "128", "data.held_out": "0",
    "train.batch_size": "4", "train.micro_batch": "1", "train.precision": "float32", "validation.every": "0",
    "train.save_every": "1000", "tracker": "none",
}  # fmt: skip
"""What is smaller than in the recipe: MoA Mini instead of SD1.5, four pictures a step instead of 128, no validation."""


def options(folder: Path, output: Path, **changes: str) -> list[str]:
    values = {**TINY, "output": str(output), "data.folder": str(folder), **changes}
    return [part for name, value in values.items() for part in (f"--{name}", value)]


def rows(output: Path) -> list[dict[str, float]]:
    """A line that is being written is none yet."""
    log = output / "log.jsonl"
    return [json.loads(line) for line in log.read_text().rpartition("\n")[0].splitlines()] if log.exists() else []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows has no fork server")
def test_the_recipe_of_the_paper_in_two_processes_of_which_one_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The other one ends with a sentence and a state, and a single process continues as if it had been alone."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    folder, server = pictures.fastcomposer(tmp_path / "ffhq", 70), killable.context()
    shared, alone, shown = tmp_path / "shared", tmp_path / "alone", tmp_path / "shown.txt"
    processes = killable.start_two(server, PAPER, *options(folder, shared, **{"train.steps": "1000"}), shown=shown)
    while len(rows(shared)) < 4 and all(process.is_alive() for process in processes):
        time.sleep(0.01)
    processes[1].kill()
    for process in processes:
        process.join()
    text = shown.read_text()
    assert processes[0].exitcode == 1, text
    sentences = [line for line in text.splitlines() if "another process" in line]
    assert sentences == [
        "train: another process of this run has ended, and this one cannot continue alone. The same command resumes, with any "
        "number of processes."
    ]
    assert "Traceback" not in text
    done = len(rows(shared))
    stored = read_run(shared / "state.safetensors")
    assert stored is not None and stored.step == done >= 4
    for output in (shared, alone):
        last = options(folder, output, **{"train.steps": str(done + 1)})
        process = killable.start(server, PAPER, *last, shown=shown)
        process.join()
        assert process.exitcode == 0, shown.read_text()
    for found, expected in zip((row for row in rows(shared) if "loss" in row), rows(alone), strict=True):
        names = [name for name in expected if name not in ("time", "gradient_norm")]
        assert [found[name] for name in names] == pytest.approx([expected[name] for name in names], rel=0.02, abs=1e-3)
    caches = [{path.name: path.read_bytes() for path in (o / "cache").glob("*.safetensors")} for o in (shared, alone)]
    assert len(caches[0]) == 2 and caches[0] == caches[1], "a shard of each process, the same bits as one process"
    header = read_header(shared / "adapter.safetensors")
    assert (header.licence, header.provenance["pictures"]) == ("CC BY-NC-SA 4.0", 70)


def test_the_recipe_of_the_paper_has_the_settings_of_the_paper():
    from comfyui_moa.recipes.adapter.settings import read_settings

    found = read_settings(PAPER)
    assert (found.train.batch_size, found.train.learning_rate, found.train.uncondition) == (128, 1e-5, 0.1)
    assert (found.train.router_weight, found.train.object_weight, found.train.unmasked) == (3e-4, 1e-3, 0.0)
    assert (found.adapter.rank, found.adapter.router, found.data.side) == (0, "linear", 512)
    assert found.train.schedule == "constant" and found.train.batch_size % 4 == 0
