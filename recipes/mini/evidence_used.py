"""The claims once more as people would use what was trained: `python recipes/run.py mini.evidence_used`.

`mini.evidence` measures at strength 1 from the first step on, which is how everything was trained. Here each adapter has
the example workflow's settings; a single fine-tuned attention has no strength, and begins where the others begin. Trains
what has not been trained.
"""

import argparse

from .ablations import PINNED, VARIANTS
from .evidence import alone, train_variant
from .jury import Jury
from .studio import BIAS, START, Studio

COMPARED = ("full", "no router loss", "single fine-tuned attention", "single, FastComposer's losses")


def main(argv: list[str]) -> None:
    """Print a row for each training."""
    parser = argparse.ArgumentParser(prog="evidence_used", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(COMPARED), help="names of variants")
    options = parser.parse_args(argv)
    jury = Jury()
    print("| | seed | identity | place | background change |\n|---|---|---|---|---|")
    for variant in (v for v in VARIANTS if v.name in options.only):
        bias = PINNED if variant.prior_bias == PINNED else BIAS
        for seed in options.seeds:
            row = alone(Studio(train_variant(variant, seed)), jury, bias, START)
            print(f"| {variant.name} | {seed} | {row['identity']:.3f} | {row['scene']:.3f} | {row['background']:.4f} |",
                  flush=True)  # fmt: skip
