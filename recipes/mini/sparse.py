"""What sparse routing changes, on MoA Mini: `python recipes/run.py mini.sparse`.

People of the test split, the same seeds for all; beside the figures of `evaluate.py`, how far the pictures are from those of
dense routing, and for how many pixels the personalised branch was computed.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...moa_attention.budget import ALL, AutomaticBudget, Budget
from .evaluate import background_change, batches, recognised
from .routers import Bench, set_up
from .studio import BIAS, START, Order, Studio


class Way(NamedTuple):
    """A budget, made anew for every run."""

    name: str
    budget: Callable[[], Budget | AutomaticBudget]


WAYS = [
    Way("dense", lambda: ALL),
    *(Way(f"automatic, R_1 above {t}", lambda t=t: AutomaticBudget(t)) for t in (0.02, 0.05, 0.1, 0.2)),
    *(Way(f"{share:.0%} of the pixels", lambda share=share: Budget(share)) for share in (0.5, 0.25, 0.125)),
]
COLUMNS = ("pixels", "computed", "identity", "background change", "two people right", "MSE to dense")


def paint(studio: Studio, wanted: list[Order], way: Way) -> tuple[Tensor, float]:
    """Pictures, and the share of pixels that was computed in the end."""
    pictures, shares = [], []
    for batch in batches(wanted):
        budget = way.budget()
        pictures.append(studio.sample(batch, BIAS, START, budget=budget)[0])
        shares.append(budget.mean() if isinstance(budget, AutomaticBudget) else budget.share)
    return torch.cat(pictures), sum(shares) / len(shares)


def row(bench: Bench, studio: Studio, way: Way, dense: Tensor | None) -> tuple[str, Tensor]:
    """A line of the table, and the pictures."""
    judged = (bench.judges, bench.galleries, bench.line_up, bench.people)
    ours, share = paint(studio, bench.wanted, way)
    both, _ = paint(studio, bench.pairs, way)
    right = recognised(*judged, ours, bench.singles).float().mean()
    two = recognised(*judged, both, bench.doubles).float().prod(1).mean()
    change = background_change(bench.judges, ours, bench.prior)
    apart = 0.0 if dense is None else (ours - dense).square().mean().item()
    return f"| {way.name} | {share:.2f} | {right:.3f} | {change:.5f} | {two:.3f} | {apart:.6f} |", ours


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(prog="sparse", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two")
    options = parser.parse_args(argv)
    studio, dense = Studio(), None
    bench = set_up(studio, options.cases, options.pairs, COLUMNS)
    for way in WAYS:
        line, pictures = row(bench, studio, way, dense)
        dense = pictures if dense is None else dense
        print(line, flush=True)
