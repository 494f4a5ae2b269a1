"""What sparse routing changes, on MoA Mini: `python recipes/run.py mini.sparse`.

People of the test split, the same seeds for all; beside the figures of `evaluate.py`, how far the pictures are from those of
dense routing, and for how many pixels the personalised branch was computed.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...moa_attention.budget import ALL, THRESHOLD, AutomaticBudget, Budget
from .cases import batches
from .routers import Bench, set_up
from .studio import BIAS, START, Order, Studio


class Way(NamedTuple):
    """Something that saves time."""

    name: str
    budget: Callable[[], Budget | AutomaticBudget] = lambda: ALL
    """Made anew for every run."""
    others: Callable[[Studio], dict[str, Any]] = lambda studio: {}
    """Other options of `apply_adapter`."""


def no_self_attention(studio: Studio) -> dict[str, Any]:
    return {"loudness": {spec.name: 0.0 for spec in studio.adapter.model.config.layers if not spec.is_cross}}


WAYS = {
    "dense": Way("dense"),
    "automatic": Way(f"automatic, above {THRESHOLD:.0%} of the largest R_1", AutomaticBudget),
    **{
        f"above {t}": Way(f"automatic, above {t:.0%} of the largest R_1", lambda t=t: AutomaticBudget(t))
        for t in (0.02, 0.1, 0.2)
    },
    **{f"1/{n}": Way(f"1/{n} of the pixels", lambda n=n: Budget(1 / n)) for n in (2, 4, 8)},
    "cross": Way("no experts in self-attention", others=no_self_attention),
    "until 0.8": Way("silent in the last fifth of the steps", others=lambda studio: {"end": 0.8}),
}
COLUMNS = ("pixels", "computed", "identity", "background change", "two people right", "MSE to dense")


def paint(studio: Studio, wanted: list[Order], way: Way) -> tuple[Tensor, float]:
    """Pictures, and the share of pixels that was computed in the end."""
    pictures, shares = [], []
    for batch in batches(wanted):
        budget = way.budget()
        pictures.append(studio.sample(batch, BIAS, START, budget=budget, **way.others(studio))[0])
        shares.append(budget.mean() if isinstance(budget, AutomaticBudget) else budget.share)
    return torch.cat(pictures), sum(shares) / len(shares)


def row(bench: Bench, studio: Studio, way: Way, dense: Tensor | None) -> tuple[str, Tensor]:
    """A line of the table, and the pictures."""
    ours, share = paint(studio, bench.wanted, way)
    both, _ = paint(studio, bench.pairs, way)
    right, two = bench.jury.identity(ours, bench.singles), bench.jury.identity(both, bench.doubles)
    change = bench.jury.background_change(ours, bench.prior)
    apart = 0.0 if dense is None else (ours - dense).square().mean().item()
    return f"| {way.name} | {share:.2f} | {right:.3f} | {change:.5f} | {two:.3f} | {apart:.6f} |", ours


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(prog="sparse", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two")
    parser.add_argument(
        "--ways", nargs="*", choices=WAYS, default=list(WAYS), help="only these, the first as reference"
    )
    options = parser.parse_args(argv)
    studio, dense = Studio(), None
    bench = set_up(studio, options.cases, options.pairs, COLUMNS)
    for name in options.ways:
        line, pictures = row(bench, studio, WAYS[name], dense)
        dense = pictures if dense is None else dense
        print(line, flush=True)
