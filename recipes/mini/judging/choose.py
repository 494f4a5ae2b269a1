"""Strength and start of Apply MoA for MoA Mini, compared on people of the validation split."""

import argparse
from collections.abc import Iterator

from ....moa_attention.run.strength import bias_from_strength
from .cases import make_requests, single_cases
from .evaluator import Evaluator
from .pipeline import MiniPipeline
from .tables import print_table

SETTINGS = [(1.0, 0.0), (0.7, 0.1), (0.6, 0.15), (0.5, 0.15), (0.5, 0.2), (0.45, 0.2), (0.4, 0.2), (0.5, 0.25)]
"""Strength, start."""


def compare_settings(count: int) -> Iterator[dict[str, str]]:
    """A row for each setting, from so many cases."""
    pipeline, evaluator = MiniPipeline(), Evaluator("validation")
    cases = single_cases(evaluator.candidates, count)
    requests = make_requests(pipeline, evaluator.identities, cases)
    for strength, start in SETTINGS:
        images, maps = pipeline.generate(requests, bias_from_strength(strength), start)
        inside, outside = evaluator.router_split(images, maps)
        yield {
            "strength": f"{strength}",
            "start": f"{start}",
            "identity": f"{evaluator.identity(images, cases):.3f}",
            "scene": f"{evaluator.scene(images, cases):.3f}",
            "R_1 inside": f"{inside:.3f}",
            "R_1 outside": f"{outside:.3f}",
        }


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="choose", description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    print_table(compare_settings(parser.parse_args(argv).cases))
