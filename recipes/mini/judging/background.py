"""Keep background on MoA Mini: `python recipes/run.py mini.judging.background`, by default on people of the validation split.

Ramps and subject guidances with the same people and seeds, each beside the ordinary result.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ....moa_attention.run.guidance import RAMP, SubjectGuidance
from ....moa_attention.run.strength import bias_from_strength
from .evaluation_set import EvaluationSet, prepare
from .pipeline import START, STRENGTH, MiniPipeline
from .tables import print_table


class BackgroundSetting(NamedTuple):
    """Settings of Apply MoA."""

    ramp: tuple[float, float] | None = None
    """None: the background is not kept."""
    guidance: float = 1.0
    strength: float = STRENGTH
    start: float = START


SETTINGS = [
    BackgroundSetting(),
    BackgroundSetting((0.05, 0.15)),
    BackgroundSetting(RAMP),
    BackgroundSetting((0.2, 0.4)),
    BackgroundSetting(RAMP, 1.6),
    BackgroundSetting((0.05, 0.15), 1.6),
    BackgroundSetting(strength=1.0, start=0.05),
    BackgroundSetting(RAMP, strength=1.0, start=0.05),
]


def subject_guidance(pipeline: MiniPipeline, setting: BackgroundSetting) -> SubjectGuidance | None:
    if setting.ramp is None:
        return None
    return SubjectGuidance(setting.guidance, pipeline.adapter.model.config.layers, setting.ramp)


def compare_background(
    pipeline: MiniPipeline, chosen: EvaluationSet, settings: Sequence[BackgroundSetting]
) -> Iterator[dict[str, str]]:
    """A row for each setting."""
    evaluator = chosen.evaluator
    for setting in settings:
        bias, guidance = bias_from_strength(setting.strength), subject_guidance(pipeline, setting)
        one, two = (
            pipeline.generate(requests, bias, setting.start, guidance=guidance)[0]
            for requests in (chosen.single_requests, chosen.double_requests)
        )
        yield {
            "keep background": "off" if setting.ramp is None else f"ramp {setting.ramp[0]} to {setting.ramp[1]}",
            "subject guidance": f"{setting.guidance:g}",
            "strength": f"{setting.strength:g} from {setting.start:g}",
            "identity": f"{evaluator.identity(one, chosen.singles):.3f}",
            "background change": f"{evaluator.background_change(one, chosen.prior):.5f}",
            "scene": f"{evaluator.scene(one, chosen.singles):.3f}",
            "two people right": f"{evaluator.identity(two, chosen.doubles):.3f}",
            "each of two": f"{evaluator.recognised(two, chosen.doubles).mean().item():.3f}",
        }


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="background", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two people")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--settings", nargs="*", type=int, default=list(range(len(SETTINGS))), help="only these rows")
    options = parser.parse_args(argv)
    pipeline = MiniPipeline()
    chosen = prepare(pipeline, options.cases, options.pairs, options.split)
    print(f"{chosen.size}, {options.split} split\n")
    print_table(compare_background(pipeline, chosen, [SETTINGS[i] for i in options.settings]))
