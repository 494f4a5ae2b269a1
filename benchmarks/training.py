"""What training takes at real widths with random weights: memory beside what `plan` foretells, and seconds a step.

Every row runs in a process of its own, so that its peak is its own. On a CPU pictures are small and arithmetic is float32;
on a card they have their usual size and it is bfloat16.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import torch

from ..moa_attention.training.base import Batch
from ..moa_attention.training.config import TrainConfig
from ..moa_attention.training.footprint import footprint
from ..moa_attention.training.loop import train
from ..moa_attention.training.lots import lots
from ..moa_attention.training.objective import Objective
from ..moa_attention.training.workers import Alone
from ..nodes.layers import fresh_adapter
from ..nodes.patch import host_patcher
from ..nodes.training import HostBase, checkpointed, training_mode

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "comfy"))
FEATURE = 768
DEVICE = comfy.model_management.get_torch_device()
CARD = DEVICE.type == "cuda"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    base: str
    side: int
    """Pixels."""
    batch: int
    rank: int
    """0: whole matrices."""
    steps: int = 6


ON_CARD = [Row("sd15", 512, batch, rank) for rank in (0, 64) for batch in (1, 4, 16)] + [Row("sdxl", 1024, 1, 64)]
ON_CPU = [Row("sd15", 256, 1, 0), Row("sd15", 256, 1, 64), Row("sdxl", 256, 1, 64)]


def settings(row: Row) -> TrainConfig:
    return TrainConfig(
        steps=row.steps, batch_size=row.batch, learning_rate=1e-4, precision="bfloat16" if CARD else "float32",
        checkpointing=True, save_every=1000,
    )  # fmt: skip


def batch(row: Row, device: torch.device) -> Batch:
    """Random latents with one subject each."""
    width, side = (768 if row.base == "sd15" else 2048), row.side // 8
    slots, masks = torch.zeros(row.batch, 77, dtype=torch.long), torch.zeros(row.batch, 1, side, side)
    slots[:, 4], masks[:, :, side // 4 : -side // 4, side // 4 : -side // 4] = 1, 1
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(row.batch, *shape, generator=generator).to(device)

    return Batch(
        noise(4, side, side), noise(77, width), slots if device.type == "meta" else slots.to(device), noise(1, FEATURE), masks.to(device),
        torch.zeros(row.batch, 1280) if row.base == "sdxl" else None,
    )  # fmt: skip


def planned(row: Row) -> float:
    """MiB, from tensors without contents."""
    import host

    meta = torch.device("meta")
    built = host.build(*host.real_width(row.base), "meta")
    model = comfy.model_patcher.ModelPatcher(built, load_device=meta, offload_device=meta)
    with meta:
        adapter = fresh_adapter(model, "clip", FEATURE, rank=row.rank)
    with checkpointed(model.model):
        objective = Objective(adapter, HostBase(model, host_patcher(adapter)), settings(row))
        found = footprint(objective, model.model.diffusion_model, batch(row, meta), settings(row), fused=CARD)
    return (found.in_bfloat16() if CARD else found).total / 2**20


def memory(field: str) -> float:
    """MiB in use: on a card what torch has taken, else of this process (`VmRSS` now, `VmHWM` at its highest)."""
    if CARD:
        return (torch.cuda.max_memory_allocated() if field == "VmHWM" else torch.cuda.memory_allocated()) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(row: Row) -> dict[str, object]:
    """Train on one batch: memory, seconds a step, and the loss before and after."""
    import host

    foretold, before, config = planned(row), memory("VmRSS"), settings(row)
    model = host.patcher(*host.real_width(row.base), dtype=torch.bfloat16 if CARD else torch.float32)
    adapter = fresh_adapter(model, "clip", FEATURE, rank=row.rank)
    used, times = [], []
    with training_mode(model, config):
        base = HostBase(model, host_patcher(adapter.to(DEVICE)))
        lot = next(lots(0, config, Alone()))

        def loss() -> float:
            with torch.no_grad():
                return float(Objective(adapter, base, config)(batch(row, DEVICE), lot.generators)[0])

        def log(*_: object) -> None:
            used.append(memory("VmHWM") - before)  # writing the state at the end takes a copy, which is not the step's
            times.append(time.perf_counter())

        first = loss()
        with tempfile.TemporaryDirectory() as folder:
            train(adapter, base, lambda _: batch(row, DEVICE), config, Path(folder) / "state", log)
        last = loss()
    between = sorted(b - a for a, b in zip(times, times[1:], strict=False))
    return {
        **asdict(row), "device": torch.cuda.get_device_name() if CARD else "CPU", "precision": config.precision,
        "planned_mib": round(foretold), "used_mib": round(used[-1]), "seconds_a_step": between[len(between) // 2],
        "loss_first": first, "loss_last": last,
    }  # fmt: skip


def main(argv: list[str]) -> None:
    """Print the table, or measure one row of it and print that as JSON."""
    parser = argparse.ArgumentParser(prog="bench-training", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.row:
        print(json.dumps(measure(Row(**options.row))))
        return
    print(
        "| base | pixels | batch | rank | planned, GiB | used, GiB | used / planned | seconds a step |\n|" + "---|" * 8
    )
    rows = []
    for row in ON_CARD if CARD else ON_CPU:
        program = [sys.executable, "-m", "devtools.run_module", "benchmarks.training", "--row", json.dumps(asdict(row))]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            print(
                f"| {row.base} | {row.side}² | {row.batch} | {row.rank or 'whole'} | {done.stderr.splitlines()[-1]} |"
            )
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(found)
        planned_gib, used_gib = found["planned_mib"] / 1024, found["used_mib"] / 1024
        print(
            f"| {row.base} | {row.side}² | {row.batch} | {row.rank or 'whole'} | {planned_gib:.1f} | {used_gib:.1f} | "
            f"{used_gib / planned_gib:.2f} | {found['seconds_a_step']:.2f} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
