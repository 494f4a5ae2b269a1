"""Settings of Apply MoA for MoA Mini, compared with the same people and seeds, by default of the validation split."""

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ....moa_attention.run.guidance import RAMP, SubjectGuidance
from ....moa_attention.run.strength import bias_from_strength
from .evaluation_set import EvaluationSet, prepare
from .pipeline import START, STRENGTH, MiniPipeline
from .tables import print_table


class Setting(NamedTuple):
    """One combination."""

    strength: float = STRENGTH
    start: float = START
    ramp: tuple[float, float] | None = None
    """Of *keep background*; None: the background is not kept."""
    guidance: float = 1.0
    """Subject guidance."""


SETTINGS = [
    Setting(1.0, 0.25),
    Setting(0.7, 0.2),
    Setting(0.5, 0.2),
    Setting(0.35, 0.2),
    Setting(0.2, 0.2),
    Setting(0.35, 0.15),
    Setting(0.25, 0.15),
    Setting(0.25, 0.1),
    Setting(0.2, 0.08),
    Setting(1.0, 0.2, RAMP),
    Setting(0.25, 0.1, RAMP),
    Setting(0.25, 0.1, RAMP, 1.3),
    Setting(0.5, 0.2, RAMP, 1.3),
]


def subject_guidance(pipeline: MiniPipeline, setting: Setting) -> SubjectGuidance | None:
    """None if the background is not kept."""
    if setting.ramp is None:
        return None
    return SubjectGuidance(setting.guidance, pipeline.adapter.model.config.layers, setting.ramp)


def compare_settings(
    pipeline: MiniPipeline, chosen: EvaluationSet, settings: Sequence[Setting]
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
            "strength": f"{setting.strength:g}",
            "start": f"{setting.start:g}",
            "keep background": "off" if setting.ramp is None else f"ramp {setting.ramp[0]} to {setting.ramp[1]}",
            "subject guidance": f"{setting.guidance:g}",
            "identity": f"{evaluator.identity(one, chosen.singles):.3f}",
            "scene": f"{evaluator.scene(one, chosen.singles):.3f}",
            "background change": f"{evaluator.background_change(one, chosen.prior):.5f}",
            "two people right": f"{evaluator.identity(two, chosen.doubles):.3f}",
            "each of two": f"{evaluator.recognised(two, chosen.doubles).mean().item():.3f}",
        }


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="settings", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two people")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--settings", nargs="*", type=int, default=list(range(len(SETTINGS))), help="only these rows")
    options = parser.parse_args(argv)
    pipeline = MiniPipeline()
    chosen = prepare(pipeline, options.cases, options.pairs, options.split)
    print(f"{chosen.size}, {options.split} split\n")
    print_table(compare_settings(pipeline, chosen, [SETTINGS[i] for i in options.settings]))
