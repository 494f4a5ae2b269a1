"""Memory and time of training at real widths with random weights, beside the memory that `plan` predicts.

Every case runs in a process of its own, so that its peak is its own. On a CPU pictures are small and arithmetic is float32;
on CUDA they have their usual size and it is bfloat16.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from tabulate import tabulate

from ..moa_attention.adapters.moa import MoAAdapter
from ..moa_attention.training.base import Batch
from ..moa_attention.training.config import TrainConfig
from ..moa_attention.training.footprint import footprint
from ..moa_attention.training.loop import train
from ..moa_attention.training.lots import Lot, lots
from ..moa_attention.training.objective import Objective
from ..moa_attention.training.workers import Alone
from ..nodes.host.model.layers import fresh_adapter
from ..nodes.host.model.patch import host_patcher
from ..nodes.host.training.trainer import HostBase, checkpointed, training_mode
from .bases import FEATURE, ROOT
from .calls import TOKENS, WIDTHS

DEVICE = comfy.model_management.get_torch_device()
CUDA = DEVICE.type == "cuda"
POOLED = 1280
"""Width of SDXL's pooled text."""


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


ON_CUDA = [TrainingCase("sd15", 512, batch, rank) for rank in (0, 64) for batch in (1, 4, 16)]
ON_CUDA += [TrainingCase("sdxl", 1024, 1, 64)]
ON_CPU = [TrainingCase("sd15", 256, 1, 0), TrainingCase("sd15", 256, 1, 64), TrainingCase("sdxl", 256, 1, 64)]


def train_config(case: TrainingCase) -> TrainConfig:
    return TrainConfig(
        steps=case.steps, batch_size=case.batch, learning_rate=1e-4, precision="bfloat16" if CUDA else "float32",
        checkpointing=True, save_every=1000,
    )  # fmt: skip


def random_batch(case: TrainingCase, device: torch.device) -> Batch:
    """Random latents with one subject each."""
    side = case.side // 8
    slots, masks = torch.zeros(case.batch, TOKENS, dtype=torch.long), torch.zeros(case.batch, 1, side, side)
    slots[:, 4], masks[:, :, side // 4 : -side // 4, side // 4 : -side // 4] = 1, 1
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(case.batch, *shape, generator=generator).to(device)

    return Batch(
        latents=noise(4, side, side),
        context=noise(TOKENS, WIDTHS[case.base]),
        slots=slots if device.type == "meta" else slots.to(device),
        references=noise(1, FEATURE),
        masks=masks.to(device),
        pooled=torch.zeros(case.batch, POOLED) if case.base == "sdxl" else None,
    )


def planned(case: TrainingCase) -> float:
    """MiB, from tensors without contents."""
    import host

    meta = torch.device("meta")
    built = host.build(*host.real_width(case.base), "meta")
    model = comfy.model_patcher.ModelPatcher(built, load_device=meta, offload_device=meta)
    with meta:
        adapter = fresh_adapter(model, "clip", FEATURE, rank=case.rank)
    config = train_config(case)
    with checkpointed(model.model):
        objective = Objective(adapter, HostBase(model, host_patcher(adapter)), config)
        found = footprint(objective, model.model.diffusion_model, random_batch(case, meta), config, fused=CUDA)
    return (found.in_bfloat16() if CUDA else found).total / 2**20


def memory(field: str) -> float:
    """MiB in use, by PyTorch on CUDA, else by this process: `VmRSS` now, `VmHWM` at its peak."""
    if CUDA:
        return (torch.cuda.max_memory_allocated() if field == "VmHWM" else torch.cuda.memory_allocated()) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure_training(case: TrainingCase) -> dict[str, object]:
    """Train on one batch: memory, seconds a step, and the loss before and after."""
    import host

    predicted, before, config = planned(case), memory("VmRSS"), train_config(case)
    model = host.patcher(*host.real_width(case.base), dtype=torch.bfloat16 if CUDA else torch.float32)
    adapter = fresh_adapter(model, "clip", FEATURE, rank=case.rank)
    with training_mode(model, config):
        base, batch = HostBase(model, host_patcher(adapter.to(DEVICE))), random_batch(case, DEVICE)
        objective, lot = Objective(adapter, base, config), next(lots(0, config, Alone()))
        first = step_loss(objective, batch, lot)
        peak, seconds = train_steps(adapter, base, batch, config)
        last = step_loss(objective, batch, lot)
    return {
        **asdict(case), "device": torch.cuda.get_device_name() if CUDA else "CPU", "precision": config.precision,
        "planned_mib": round(predicted), "used_mib": round(peak - before), "seconds_a_step": seconds,
        "loss_first": first, "loss_last": last,
    }  # fmt: skip


def step_loss(objective: Objective, batch: Batch, lot: Lot) -> float:
    """Of a step without training, on the next noise of the lot's generators."""
    with torch.no_grad():
        return float(objective(batch, lot.generators)[0])


def train_steps(adapter: MoAAdapter, base: HostBase, batch: Batch, config: TrainConfig) -> tuple[float, float]:
    """Peak MiB, and the median of the seconds a step."""
    peaks, times = [], []

    def log(*_: object) -> None:
        peaks.append(memory("VmHWM"))  # the state written at the end is a copy that does not belong to a step
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(adapter, base, lambda _: batch, config, Path(folder) / "state", log)
    between = sorted(b - a for a, b in zip(times, times[1:], strict=False))
    return peaks[-1], between[len(between) // 2]


def case_row(case: TrainingCase, found: Mapping[str, Any] | str) -> list[str]:
    """The figures of a case, or the error that ended it."""
    row = [case.base, f"{case.side}²", f"{case.batch}", f"{case.rank or 'whole'}"]
    if isinstance(found, str):
        return [*row, found]
    planned_gib, used_gib = found["planned_mib"] / 1024, found["used_mib"] / 1024
    ratio, seconds = used_gib / planned_gib, found["seconds_a_step"]
    return [*row, f"{planned_gib:.1f}", f"{used_gib:.1f}", f"{ratio:.2f}", f"{seconds:.2f}"]


def main(argv: list[str]) -> None:
    """Print the table, or measure one case and print its figures as JSON."""
    parser = argparse.ArgumentParser(prog="bench-training", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.row:
        print(json.dumps(measure_training(TrainingCase(**options.row))))
        return
    rows, measured = [], []
    for case in ON_CUDA if CUDA else ON_CPU:
        program = [
            sys.executable,
            "-m",
            "devtools.run_module",
            "benchmarks.training",
            "--row",
            json.dumps(asdict(case)),
        ]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            rows.append(case_row(case, done.stderr.splitlines()[-1]))
        else:
            measured.append(json.loads(done.stdout.splitlines()[-1]))
            rows.append(case_row(case, measured[-1]))
        print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
    head = ("base", "pixels", "batch", "rank", "planned, GiB", "used, GiB", "used / planned", "seconds a step")
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
