"""The claims once more as people would use what was trained: `python recipes/run.py mini.evidence_used`.

`mini.evidence` measures at strength 1 from the first step on, which is how everything was trained. Here each adapter has
the example workflow's settings; a single fine-tuned attention has no strength, and begins where the others begin. Trains
what has not been trained.
"""

import argparse

import torch

from .ablations import PINNED, VARIANTS, Variant
from .evaluate import background_change, gallery, line_ups, orders, paint_all, recognised, single_cases
from .evidence import CASES, prior_pictures, train_variant
from .judges import load_judges
from .studio import BIAS, START, People, Studio

COMPARED = ("full", "no router loss", "single fine-tuned attention", "single, FastComposer's losses")


@torch.no_grad()
def used(variant: Variant, seed: int) -> dict[str, float]:
    """Identity, place and background of one training, on the cases of `mini.evidence`."""
    adapter, people, judges = train_variant(variant, seed), People(), load_judges()
    studio, line_up = Studio(adapter), line_ups(people)
    galleries = {noun: gallery(judges, people, ids) for noun, ids in line_up.items()}
    cases = single_cases(line_up, CASES)
    wanted = orders(studio, people, cases)
    pictures, _ = paint_all(studio, wanted, PINNED if variant.prior_bias == PINNED else BIAS, START)
    right = recognised(judges, galleries, line_up, people, pictures, cases).float()
    place = judges.place(pictures) == torch.tensor([case.scene for case in cases])
    return {
        "identity": right.mean().item(),
        "place": place.float().mean().item(),
        "background change": background_change(judges, pictures, prior_pictures(studio, wanted)),
    }


def main(argv: list[str]) -> None:
    """Print a row for each training."""
    parser = argparse.ArgumentParser(prog="evidence_used", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(COMPARED), help="names of variants")
    options = parser.parse_args(argv)
    print("| | seed | identity | place | background change |\n|---|---|---|---|---|")
    for variant in (v for v in VARIANTS if v.name in options.only):
        for seed in options.seeds:
            row = used(variant, seed)
            print(f"| {variant.name} | {seed} | {row['identity']:.3f} | {row['place']:.3f} | {row['background change']:.4f} |",
                  flush=True)  # fmt: skip
