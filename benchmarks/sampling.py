"""What MoA costs at a step of sampling, against the stock model: a table, a plot and, with --json, the rows behind them.

FLOPs, waits for the device and memory are counted for every variant, on models that have shapes and no contents. Time is
taken where --time says, on random weights at their real width. Rows of the file named by --json are kept and merged with,
so that one run may count and others time: with --no-count nothing is counted again.

`peak_extra_mib` is the adapter's weights in the row's precision plus what it adds to the peak of activations. On the meta device
`host_syncs` are values that the host reads from the device; on a card they are whatever PyTorch itself warns of.
"""

import argparse
import ctypes
import gc
import sys
from contextlib import suppress
from pathlib import Path

import comfy.model_management
import torch

from .bases import ROOT, filled, hollow
from .measured import count_rows, time_rows
from .plot import draw
from .rows import Row, merge, read_rows, table, write_rows
from .setting_up import set_up_costs
from .variants import counted_variants, timed_variants

COUNTED = (("sd15", 512), ("sd15", 768), ("sdxl", 1024))


def place(text: str) -> tuple[str, int]:
    """`sd15:512` -> ("sd15", 512)"""
    base, size = text.split(":")
    if base not in ("sd15", "sdxl") or int(size) % 64:
        raise ValueError(text)
    return base, int(size)


def count_all() -> list[Row]:
    """Every variant of every model, with and without guidance."""
    rows = []
    for base, side in COUNTED:
        pair = hollow(base)
        print(f"counting {base} at {side}²", file=sys.stderr, flush=True)
        for cfg in (True, False):
            rows += count_rows(pair, side, cfg, counted_variants())
    return rows


def time_all(places: list[tuple[str, int]], rounds: int, brief: bool) -> list[Row]:
    """One model after the other, as two would not fit."""
    device = comfy.model_management.get_torch_device()
    precisions = (torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.float32,)
    if device.type == "cpu":
        torch.set_num_threads(1)  # several, on a machine with other tenants, spread by more than what is measured
        keep_memory()
    rows = []
    for base in dict.fromkeys(base for base, _ in places):
        for dtype in precisions:
            pair = filled(base, device, dtype)
            for side in (side for other, side in places if other == base):
                print(f"timing {base} at {side}², {pair.where} {pair.precision}", file=sys.stderr, flush=True)
                rows += time_rows(pair, side, rounds, timed_variants(brief))
            del pair
            comfy.model_management.unload_all_models()
            gc.collect()  # a model and its patcher know each other
    return rows


def keep_memory() -> None:
    """Let the C library keep what is freed: a tenth of a call's time, and an uneven one, is giving pages back and getting them
    again. One heap for all threads, as those of others are bounded. Where it is not glibc nothing happens."""
    with suppress(OSError, AttributeError, TypeError):
        library, mmap_max, trim_threshold, arena_max = ctypes.CDLL(None), -4, -1, -8
        library.mallopt(arena_max, 1)
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def main(argv: list[str]) -> None:
    """Measure what is asked for, and show it with what was measured before."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="rows are read from there, merged with and written back")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "images" / "costs.png", help="where to draw it")
    parser.add_argument("--time", type=place, action="append", metavar="BASE:PIXELS", help="time it; default: sd15:512")
    parser.add_argument("--no-time", action="store_true", help="only count")
    parser.add_argument("--no-count", action="store_true", help="keep what the file has counted")
    parser.add_argument("--brief", action="store_true", help="time one subject only, dense and sparse")
    parser.add_argument("--rounds", type=int, default=5, help="of timing; default: 5")
    parser.add_argument(
        "--setup", action="store_true", help="also what a change of file, subject, strength and prompt costs"
    )
    options = parser.parse_args(argv)
    rows = read_rows(options.json)
    for unwanted, measure in (
        (options.no_count, count_all),
        (options.no_time, lambda: time_all(options.time or [("sd15", 512)], options.rounds, options.brief)),
    ):
        rows = rows if unwanted else merge(rows, measure())
        if options.json:
            write_rows(options.json, rows)
    print(f"torch {torch.__version__}\n\n{table(rows)}")
    if rows:
        draw(rows, options.plot)
    if options.setup:
        print(f"\n{set_up_costs(options.rounds)}")
