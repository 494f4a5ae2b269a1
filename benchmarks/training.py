"""Memory and time of training by the commands a user types, at real widths with random weights, beside the figures of `plan`.

Every command runs in a process of its own. On a CPU pictures are small and arithmetic is float32; on CUDA they have their
usual size and it is bfloat16. Memory is that of the whole process, over caching and training.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from .training_run import TrainingCase, TrainingRun

ON_CUDA = [TrainingCase("sd15", 512, batch, rank) for rank in (0, 64) for batch in (1, 4, 16)]
ON_CUDA += [TrainingCase("sdxl", 1024, 1, 64)]
ON_CPU = [TrainingCase("sd15", 256, 1, 0), TrainingCase("sd15", 256, 1, 64), TrainingCase("sdxl", 256, 1, 64)]


def measure_training(case: TrainingCase) -> dict[str, Any]:
    """Plan and train: memory, and seconds a step.

    Raises: RuntimeError when a command fails.
    """
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(Path(folder), case, cuda)
        planned = run.planned()
        used = run.command("train").peak
        return {
            **asdict(case), "device": torch.cuda.get_device_name() if cuda else "CPU", "precision": run.precision,
            "planned_mib": round(planned), "used_mib": round(used), "seconds_a_step": run.seconds_a_step(),
        }  # fmt: skip


def case_row(case: TrainingCase, found: Mapping[str, Any] | str) -> list[str]:
    """The figures of a case, or the error that ended it."""
    row = [case.base, f"{case.side}²", f"{case.batch}", f"{case.rank or 'whole'}"]
    if isinstance(found, str):
        return [*row, found]
    planned_gib, used_gib = found["planned_mib"] / 1024, found["used_mib"] / 1024
    ratio, seconds = used_gib / planned_gib, found["seconds_a_step"]
    return [*row, f"{planned_gib:.1f}", f"{used_gib:.1f}", f"{ratio:.2f}", f"{seconds:.2f}"]


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench-training", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(argv)
    rows, measured = [], []
    for case in ON_CUDA if torch.cuda.is_available() else ON_CPU:
        try:
            measured.append(measure_training(case))
            rows.append(case_row(case, measured[-1]))
        except RuntimeError as error:
            rows.append(case_row(case, str(error)))
        print(", ".join(rows[-1]), flush=True)
    head = ("base", "pixels", "batch", "rank", "planned, GiB", "used, GiB", "used / planned", "seconds a step")
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
