"""`prepare`, `plan`, `train` and `eval` as a user types them, on SD1.5 and CLIP ViT-L at full width with random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import evaluations
import pytest
from comfyui_moa.benchmarks.training_run import TrainingCase, TrainingRun
from comfyui_moa.moa_attention.formats.adapter import read_header


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_the_whole_road_at_full_width_needs_the_memory_that_was_planned(tmp_path: Path):
    people = evaluations.drawn_people(tmp_path / "people")
    (tmp_path / "prompts.txt").write_text("a {} on a beach\n")
    evaluation = {
        "people": people.as_posix(), "prompts": (tmp_path / "prompts.txt").as_posix(), "pictures": 1, "pairs": 0,
        "steps": 1, "side": 64, "regions": "router",
    }  # fmt: skip
    table = "\n".join(["[evaluation]", *(f"{name} = {json.dumps(value)}" for name, value in evaluation.items())])
    case = TrainingCase("sd15", side=256, batch=1, rank=64, steps=2, pictures=2)
    run = TrainingRun(tmp_path, case, cuda=False, more=table)
    run.command("prepare")
    assert (run.output / "prepared").is_dir()
    unaveraged = ("--ema_decay", "0")  # it saves a line of the plan
    assert run.command("train", *unaveraged).peak == pytest.approx(run.planned(*unaveraged), rel=0.15)
    header = read_header(run.output / "adapter.safetensors")
    assert (header.config.rank, header.config.base, header.config.image_width) == (64, "sd15", 768)
    assert len((run.output / "log.jsonl").read_text().splitlines()) == 2
    run.command("eval")
    found = json.loads((run.output / "evaluation" / "evaluation.json").read_text())
    assert found["base"].endswith("base.safetensors")
    assert len(list((run.output / "evaluation" / "pictures").glob("*.png"))) >= 6
