"""Strength and start of Apply MoA for MoA Mini, compared on people of the validation split."""

import argparse

import torch

from ...nodes.apply import bias_from_strength
from .cases import orders, paint_all, single_cases
from .jury import Jury
from .studio import Studio

CANDIDATES = [(1.0, 0.0), (0.7, 0.1), (0.6, 0.15), (0.5, 0.15), (0.5, 0.2), (0.45, 0.2), (0.4, 0.2), (0.5, 0.25)]


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Print a line for each candidate."""
    parser = argparse.ArgumentParser(prog="choose", description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    options = parser.parse_args(argv)
    studio, jury = Studio(), Jury("validation")
    cases = single_cases(jury.line_up, options.cases)
    wanted = orders(studio, jury.people, cases)
    print("strength start | identity scene | R_1 inside outside", flush=True)
    for strength, start in CANDIDATES:
        pictures, routes = paint_all(studio, wanted, bias_from_strength(strength), start)
        assert routes is not None
        identity, scene = jury.identity(pictures, cases), jury.place(pictures, cases)
        within, without = jury.router_split(pictures, routes)
        print(f"{strength:8} {start:5} | {identity:8.3f} {scene:5.3f} | {within:10.3f} {without:7.3f}", flush=True)
