"""One training run at real widths: its files, its config, and the commands `prepare`, `plan`, `train` and `eval` in processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..recipes.adapter.commands import MODULES
from .bases import ROOT

EVERY = 0.05
"""Seconds between two looks at the memory of a process."""
SHOWN = 2000
"""Characters of a failed command's output in the error."""


@dataclass(frozen=True)
class TrainingCase:
    """One line of the table."""

    base: str
    side: int
    """Pixels."""
    batch: int
    rank: int
    """0: full matrices."""
    steps: int = 6
    pictures: int = 4


class Done(NamedTuple):
    """A command that succeeded."""

    output: str
    """What it printed."""
    peak: float
    """MiB of memory at its peak; on CUDA that of the card."""


class TrainingRun:
    """A folder with everything that the commands need: checkpoint and CLIP vision model of random weights, pictures, config.

    Args:
        cuda: whether the commands train on CUDA.
        more: further lines of the config file.
    """

    def __init__(self, folder: Path, case: TrainingCase, cuda: bool, more: str = ""):
        import full_width
        import pictures

        self.folder, self.case, self.cuda = folder, case, cuda
        self.output, self.config = folder / "run", folder / "config.toml"
        self.precision = "bfloat16" if cuda else "float32"
        checkpoint = full_width.checkpoint(folder / "base.safetensors", case.base)
        vision = full_width.vit_l(folder / "vision.safetensors")
        data = pictures.kohya(folder / "pictures", case.pictures, enlarged=-(-case.side // pictures.SIDE))
        self.config.write_text(
            f"""
            output = "{self.output.as_posix()}"
            tracker = "none"
            models = {{ checkpoint = "{checkpoint.as_posix()}", clip_vision = "{vision.as_posix()}" }}
            data = {{ folder = "{data.as_posix()}", licence = "CC0-1.0", side = {case.side}, views = 1 }}
            adapter.rank = {case.rank}
            train = {{ steps = {case.steps}, batch_size = {case.batch}, precision = "{self.precision}", checkpointing = true }}
            validation.every = 0
            {more}
            """,
            encoding="utf-8",
        )

    def command(self, name: str, *options: str) -> Done:
        """Run `dev.py NAME config.toml OPTIONS`.

        Raises: RuntimeError with the end of its output when it fails.
        """
        module = f"adapter.{MODULES.get(name, name)}"
        program = [sys.executable, str(ROOT / "recipes" / "run.py"), module, str(self.config), *options]
        text = self.folder / f"{name}.txt"
        with text.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(program, stdout=file, stderr=subprocess.STDOUT)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, card_memory(process.pid) if self.cuda else own_memory(process.pid))
            time.sleep(EVERY)
        shown = text.read_text(encoding="utf-8")
        if process.returncode:
            raise RuntimeError(f"{name} ended with {process.returncode}: {shown[-SHOWN:]}")
        return Done(shown, peak)

    def planned(self, *options: str) -> float:
        """MiB that `plan` states for the run as it is."""
        shown = self.command("plan", *(["--gib", "80"] if self.cuda else ["--card", "cpu"]), *options).output
        header, first = (next(row for row in shown.splitlines() if mark in row) for mark in ("total, GiB", "as it is"))
        place = [cell.strip() for cell in header.split("|")].index("total, GiB")
        return float(first.split("|")[place]) * 1024

    def seconds_a_step(self) -> float:
        """The median over the steps after the first."""
        times = [json.loads(row)["time"] for row in (self.output / "log.jsonl").read_text().splitlines()]
        between = sorted(b - a for a, b in zip(times, times[1:], strict=False))
        return round(between[len(between) // 2], 2)


def own_memory(pid: int) -> float:
    """MiB of a process now, without the pages of files, which the system can drop. On Linux only."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it ended
        return 0.0
    return sum(int(found) for found in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status)) / 1024


def card_memory(pid: int) -> float:
    """MiB that a process has on the card now, by NVIDIA's tool."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    rows = [row.split(",") for row in subprocess.run(query, capture_output=True, text=True).stdout.splitlines()]
    return sum(float(row[1]) for row in rows if row[0].strip() == str(pid))
