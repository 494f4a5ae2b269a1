"""Strength and start of Apply MoA for MoA Mini, compared on people of the validation split."""

import argparse

import torch
import torch.nn.functional as F

from ...nodes.apply import bias_from_strength
from .dataset import MASK_SIZE
from .evaluate import gallery, line_ups, orders, paint_all, recognised, single_cases
from .judges import load_judges
from .studio import GRID, People, Studio

CANDIDATES = [(1.0, 0.0), (0.7, 0.1), (0.6, 0.15), (0.5, 0.15), (0.5, 0.2), (0.45, 0.2), (0.4, 0.2), (0.5, 0.25)]


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Print a line for each candidate."""
    parser = argparse.ArgumentParser(prog="choose", description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    options = parser.parse_args(argv)
    studio, people, judges = Studio(), People(), load_judges()
    line_up = line_ups(people, "validation")
    galleries = {noun: gallery(judges, people, ids) for noun, ids in line_up.items()}
    cases = single_cases(line_up, options.cases)
    wanted, scenes = orders(studio, people, cases), torch.tensor([case.scene for case in cases])
    print("strength start | identity scene | R_1 inside outside", flush=True)
    for strength, start in CANDIDATES:
        pictures, routes = paint_all(studio, wanted, bias_from_strength(strength), start)
        assert routes is not None
        inside = F.avg_pool2d(judges.people(pictures), MASK_SIZE // GRID[0])
        identity = recognised(judges, galleries, line_up, people, pictures, cases).float().mean()
        scene = (judges.place(pictures) == scenes).float().mean()
        within, without = ((routes * m).sum() / m.sum() for m in (inside, 1 - inside))
        print(f"{strength:8} {start:5} | {identity:8.3f} {scene:5.3f} | {within:10.3f} {without:7.3f}", flush=True)
