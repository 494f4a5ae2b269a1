"""Training-free routers beside the learned one, on MoA Mini: `python recipes/run.py mini.judging.routers`.

People of the test split, the same seeds for all. The measures are those of `evaluate.py`, and besides

* swaps: pictures of two people in which one is recognised, among the candidates of both sexes, as the other one;
* unlike: pictures in which one is closer to the other one's reference than to their own, recognised or not;
* overlap: intersection over union of the region with R_1 above half of its maximum and the region with people, from the
  tenth step on.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ....moa_attention.routers.base import ConstantRouter, TrainingFreeRouter
from ....moa_attention.routers.words import WordRouter
from ....moa_attention.run.strength import bias_from_strength
from .cases import SceneCase
from .evaluation_set import EvaluationSet, prepare
from .evaluator import Evaluator
from .pipeline import START, STEPS, STRENGTH, MiniPipeline
from .tables import print_table

LATE = STEPS - 10
"""Steps from the tenth on."""


class RouterSetting(NamedTuple):
    """A router and the settings of Apply MoA."""

    name: str
    router: Callable[[], TrainingFreeRouter | None]
    """None: the adapter's own."""
    strength: float
    start: float


SETTINGS = [
    RouterSetting("learned", lambda: None, STRENGTH, START),
    *(RouterSetting("attention", WordRouter, strength, START) for strength in (STRENGTH, 0.5, 1.0)),
    *(RouterSetting("constant", ConstantRouter, strength, START) for strength in (STRENGTH, 1.0)),
]


def exchanged(evaluator: Evaluator, images: Tensor, cases: Sequence[SceneCase]) -> Tensor:
    """(cases, 2) bool: a person recognised as the other one; a person closer to the other one than to themselves."""
    gallery, rows = torch.stack(list(evaluator.gallery.values())), []
    for image, outline, case in zip(images, evaluator.judges.segment(images), cases, strict=True):
        found = evaluator.embed_people(image, outline, 2)
        other = torch.stack([evaluator.gallery[i] for i in reversed(case.people)])
        as_other, as_self = (found * other).sum(dim=1), (found * other.flip(0)).sum(dim=1)
        nearest = (found @ gallery.T).amax(dim=1)
        rows.append([bool((as_other >= nearest - 1e-6).any()), bool((as_other > as_self).any())])
    return torch.tensor(rows)


def router_overlap(maps: Tensor, people: Tensor) -> float:
    """R_1 (B,16,16) and soft masks of people (B,16,16) -> mean intersection over union."""
    routed, present = maps > maps.amax(dim=(1, 2), keepdim=True) / 2, people > 0.5
    union = (routed | present).sum(dim=(1, 2)).clamp(min=1)
    return ((routed & present).sum(dim=(1, 2)) / union).mean().item()


def measure_router(chosen: EvaluationSet, pipeline: MiniPipeline, setting: RouterSetting) -> dict[str, str]:
    """A row of the table."""
    evaluator, bias = chosen.evaluator, bias_from_strength(setting.strength)
    one, maps = pipeline.generate(chosen.single_requests, bias, setting.start, LATE, router=setting.router())
    two, _ = pipeline.generate(chosen.double_requests, bias, setting.start, LATE, router=setting.router())
    swaps, unlike = exchanged(evaluator, two, chosen.doubles).float().mean(dim=0)
    return {
        "router": setting.name,
        "strength": f"{setting.strength}",
        "identity": f"{evaluator.identity(one, chosen.singles):.3f}",
        "background change": f"{evaluator.background_change(one, chosen.prior):.5f}",
        "overlap": f"{router_overlap(maps, evaluator.person_maps(one)):.2f}",
        "two people right": f"{evaluator.identity(two, chosen.doubles):.3f}",
        "swaps": f"{swaps:.3f}",
        "unlike": f"{unlike:.3f}",
    }


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="routers", description=__doc__)
    parser.add_argument("--cases", type=int, default=100, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two people")
    options = parser.parse_args(argv)
    pipeline = MiniPipeline()
    chosen = prepare(pipeline, options.cases, options.pairs)
    print(f"{chosen.size}\n")
    print_table(measure_router(chosen, pipeline, setting) for setting in SETTINGS)
