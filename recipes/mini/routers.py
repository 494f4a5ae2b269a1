"""Routers without training beside the learned one, on MoA Mini: `python recipes/run.py mini.routers`.

People of the test split, the same seeds for all. What is measured is as in `evaluate.py`, and besides

* swaps: pictures of two people in which somebody is recognised, among all people of both line-ups, as the other one;
* unlike: pictures in which somebody looks more like the other one's reference than like their own, recognised or not;
* overlap: intersection over union of where R_1 is above half of its highest and where people are, from the tenth step on.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...moa_attention.untrained import ConstantRouter, UntrainedRouter
from ...moa_attention.word_router import WordRouter
from ...nodes.apply import bias_from_strength
from .cases import Case, batches, double_cases, orders, paint_all, single_cases
from .jury import Jury
from .studio import START, STEPS, STRENGTH, Order, Studio, mean_maps

TENTH = 10


class Way(NamedTuple):
    """A router and the settings of Apply MoA."""

    name: str
    router: Callable[[], UntrainedRouter | None]
    strength: float
    start: float


WAYS = [
    Way("learned", lambda: None, STRENGTH, START),
    *(Way("attention", WordRouter, strength, START) for strength in (0.5, 0.75, 1.0)),
    *(Way("constant", ConstantRouter, strength, START) for strength in (0.5, 1.0)),
]


def paint_way(studio: Studio, wanted: list[Order], way: Way) -> tuple[Tensor, Tensor]:
    """Pictures, and the mean R_1 (B,16,16) from the tenth step on."""
    pictures, maps = [], []
    for batch in batches(wanted):
        painted, trace = studio.sample(batch, bias_from_strength(way.strength), way.start, router=way.router())
        late = [call for step in trace.steps()[TENTH - STEPS :] for call in step]
        pictures.append(painted)
        maps.append(mean_maps(trace, late, len(batch)))
    return torch.cat(pictures), torch.cat(maps)


def swapped(jury: Jury, pictures: Tensor, cases: list[Case]) -> Tensor:
    """(cases, 2) bool: whether somebody is recognised as the other one, and whether somebody looks more like the other one's
    reference than like their own."""
    everybody, found = torch.stack(list(jury.gallery.values())), []
    for picture, outline, case in zip(pictures, jury.judges.people(pictures), cases, strict=True):
        seen = jury.portraits(picture, outline, 2)
        other = torch.stack([jury.gallery[i] for i in reversed(case.people)])
        as_other, as_self = (seen * other).sum(dim=1), (seen * other.flip(0)).sum(dim=1)
        nearest = (seen @ everybody.T).amax(dim=1)
        found.append([bool((as_other >= nearest - 1e-6).any()), bool((as_other > as_self).any())])
    return torch.tensor(found)


def overlap(maps: Tensor, people: Tensor) -> float:
    """(B,16,16) R_1 and (B,16,16) people -> mean intersection over union."""
    said, there = maps > maps.amax(dim=(1, 2), keepdim=True) / 2, people > 0.5
    union = (said | there).sum(dim=(1, 2)).clamp(min=1)
    return ((said & there).sum(dim=(1, 2)) / union).mean().item()


class Bench(NamedTuple):
    """Who is painted, and by what that is judged."""

    jury: Jury
    singles: list[Case]
    doubles: list[Case]
    wanted: list[Order]
    pairs: list[Order]
    prior: Tensor
    """Pictures of the base model alone, of `wanted`."""


COLUMNS = ("router", "strength", "identity", "background change", "overlap", "two people right", "swaps", "unlike")


def set_up(studio: Studio, cases: int, pairs: int, columns: Sequence[str] = COLUMNS) -> Bench:
    """The same people and seeds for everybody; says so, and prints the head of the table."""
    jury = Jury()
    singles, doubles = single_cases(jury.line_up, cases), double_cases(jury.line_up, pairs)
    wanted = orders(studio, jury.people, singles)
    print(f"{cases} pictures of one person, {pairs} of two\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    prior, _ = paint_all(studio, wanted, None)
    return Bench(jury, singles, doubles, wanted, orders(studio, jury.people, doubles), prior)


def row(bench: Bench, studio: Studio, way: Way) -> str:
    """A line of the table."""
    jury = bench.jury
    ours, maps = paint_way(studio, bench.wanted, way)
    both, _ = paint_way(studio, bench.pairs, way)
    right, two = jury.identity(ours, bench.singles), jury.identity(both, bench.doubles)
    exchanged, unlike = swapped(jury, both, bench.doubles).float().mean(dim=0)
    change = jury.background_change(ours, bench.prior)
    return (
        f"| {way.name} | {way.strength} | {right:.3f} | {change:.5f} | {overlap(maps, jury.inside(ours)):.2f} | {two:.3f} "
        f"| {exchanged:.3f} | {unlike:.3f} |"
    )


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(prog="routers", description=__doc__)
    parser.add_argument("--cases", type=int, default=100, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two")
    options = parser.parse_args(argv)
    studio = Studio()
    bench = set_up(studio, options.cases, options.pairs)
    for way in WAYS:
        print(row(bench, studio, way), flush=True)
