"""Costs of MoA at one step of sampling, against the stock model: a table, a plot and, with --json, the measurements.

FLOPs, synchronisations and memory are counted for every variant, on models with shapes and no contents. Time is measured for
the models and sizes of --time, on random weights at their real width. New measurements are merged into the file of --json,
so that one run may count and others time; --no-count keeps the file's counts.

`peak_extra_mib` is the adapter's weights in the row's precision plus what it adds to the peak of activations. On the meta device
`host_syncs` are values that the host reads from the device; on CUDA they are the synchronisations that PyTorch warns of.
"""

import argparse
import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import comfy.model_management
import torch

from .bases import ROOT, meta_pair, random_pair
from .measurements import Measurement, cost_table, merge, read_measurements, write_measurements
from .measuring import count_variants, time_variants
from .plot import plot_costs
from .setup_costs import setup_table
from .variants import counted_variants, timed_variants

COUNTED = (("sd15", 512), ("sd15", 768), ("sdxl", 1024))


def model_and_size(text: str) -> tuple[str, int]:
    """`sd15:512` -> ("sd15", 512)"""
    base, size = text.split(":")
    if base not in ("sd15", "sdxl") or int(size) % 64:
        raise ValueError(text)
    return base, int(size)


def count_all() -> list[Measurement]:
    """Every variant of every model, with and without guidance."""
    found = []
    for base, side in COUNTED:
        pair = meta_pair(base)
        print(f"counting {base} at {side}²", file=sys.stderr, flush=True)
        for cfg in (True, False):
            found += count_variants(pair, side, cfg, counted_variants())
    return found


def time_all(sizes: list[tuple[str, int]], rounds: int, brief: bool) -> list[Measurement]:
    """One model after the other, as two do not fit into memory."""
    device = comfy.model_management.get_torch_device()
    precisions = (torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    if device.type == "cpu":
        torch.set_num_threads(1)  # several vary by more than what is measured, on a shared machine
        keep_memory()
    found = []
    for base in dict.fromkeys(base for base, _ in sizes):
        for dtype in precisions:
            pair = random_pair(base, device, dtype)
            for side in (side for other, side in sizes if other == base):
                print(f"timing {base} at {side}², {pair.device_name} {pair.precision}", file=sys.stderr, flush=True)
                found += time_variants(pair, side, rounds, timed_variants(brief))
            del pair
            comfy.model_management.unload_all_models()
            gc.collect()  # a model and its patcher refer to each other
    return found


def keep_memory() -> None:
    """Make glibc keep freed memory: returning and requesting pages takes an uneven tenth of a call's time.

    One heap for all threads, as the size of the others is bounded. No effect with other C libraries.
    """
    with suppress(OSError, AttributeError, TypeError):
        library, mmap_max, trim_threshold, arena_max = ctypes.CDLL(None), -4, -1, -8
        library.mallopt(arena_max, 1)
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def main(argv: list[str]) -> None:
    """Measure as the options select, and print the table with earlier measurements."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="measurements are read from this file, merged and written back")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "images" / "costs.png", help="file of the plot")
    parser.add_argument(
        "--time",
        type=model_and_size,
        action="append",
        metavar="BASE:PIXELS",
        help="model and size to time; default: sd15:512",
    )
    parser.add_argument("--no-time", action="store_true", help="only count")
    parser.add_argument("--no-count", action="store_true", help="keep the file's counts")
    parser.add_argument("--brief", action="store_true", help="time one subject only, dense and sparse")
    parser.add_argument("--rounds", type=int, default=5, help="of timing; default: 5")
    parser.add_argument(
        "--setup", action="store_true", help="also the cost of a change of file, subject, strength and prompt"
    )
    options = parser.parse_args(argv)
    measurements = read_measurements(options.json)
    for skipped, measure in (
        (options.no_count, count_all),
        (options.no_time, lambda: time_all(options.time or [("sd15", 512)], options.rounds, options.brief)),
    ):
        measurements = measurements if skipped else merge(measurements, measure())
        if options.json:
            write_measurements(options.json, measurements)
    print(f"torch {torch.__version__}\n\n{cost_table(measurements)}")
    if measurements:
        plot_costs(measurements, options.plot)
    if options.setup:
        print(f"\n{setup_table(options.rounds)}")
