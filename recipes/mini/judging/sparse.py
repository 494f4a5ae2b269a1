"""Sparse routing on MoA Mini: `python recipes/run.py mini.judging.sparse`.

People of the test split, the same seeds for all. Beside the measures of `evaluate.py`: the distance of the pictures from
those of dense routing, and the share of pixels for which the personalised branch was computed.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....moa_attention.run.budget import ALL, THRESHOLD, AutomaticBudget, Budget
from .evaluation_set import EvaluationSet, prepare
from .pipeline import ImageRequest, MiniPipeline, batches
from .tables import print_table


class SparsitySetting(NamedTuple):
    """A way to compute less."""

    name: str
    budget: Callable[[], Budget | AutomaticBudget] = lambda: ALL
    """Called for every run."""
    options: Callable[[MiniPipeline], dict[str, Any]] = lambda pipeline: {}
    """Further options of `apply_adapter`."""


def no_self_attention(pipeline: MiniPipeline) -> dict[str, Any]:
    """Strength 0 in every self-attention layer."""
    layers = pipeline.adapter.model.config.layers
    return {"layer_strength": {spec.name: 0.0 for spec in layers if not spec.is_cross}}


def above(threshold: float) -> SparsitySetting:
    return SparsitySetting(f"automatic, above {threshold:.0%} of the largest R_1", lambda: AutomaticBudget(threshold))


def share_of_pixels(divisor: int) -> SparsitySetting:
    return SparsitySetting(f"1/{divisor} of the pixels", lambda: Budget(1 / divisor))


SETTINGS = {
    "dense": SparsitySetting("dense"),
    "automatic": above(THRESHOLD),
    **{f"above {t}": above(t) for t in (0.02, 0.1, 0.2)},
    **{f"1/{n}": share_of_pixels(n) for n in (2, 4, 8)},
    "cross": SparsitySetting("no experts in self-attention", options=no_self_attention),
    "until 0.8": SparsitySetting("prior only in the last fifth of the steps", options=lambda pipeline: {"end": 0.8}),
}


def generate_sparse(
    pipeline: MiniPipeline, requests: Sequence[ImageRequest], setting: SparsitySetting
) -> tuple[Tensor, float]:
    """Images, and the mean share of pixels that was computed."""
    images, shares = [], []
    for batch in batches(requests):
        budget = setting.budget()
        images.append(pipeline.sample(batch, budget=budget, **setting.options(pipeline))[0])
        shares.append(budget.share if isinstance(budget, Budget) else budget.measured_share() or 1.0)
    return torch.cat(images), sum(shares) / len(shares)


def compare_sparsity(
    pipeline: MiniPipeline, chosen: EvaluationSet, settings: Sequence[SparsitySetting]
) -> Iterator[dict[str, str]]:
    """A row for each setting; distances are from the first."""
    first, evaluator = None, chosen.evaluator
    for setting in settings:
        one, share = generate_sparse(pipeline, chosen.single_requests, setting)
        two, _ = generate_sparse(pipeline, chosen.double_requests, setting)
        first = one if first is None else first
        yield {
            "pixels": setting.name,
            "computed": f"{share:.2f}",
            "identity": f"{evaluator.identity(one, chosen.singles):.3f}",
            "background change": f"{evaluator.background_change(one, chosen.prior):.5f}",
            "two people right": f"{evaluator.identity(two, chosen.doubles):.3f}",
            "MSE to dense": f"{(one - first).square().mean().item():.6f}",
        }


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="sparse", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two people")
    parser.add_argument(
        "--settings",
        nargs="*",
        choices=SETTINGS,
        default=list(SETTINGS),
        help="only these settings; the first is the reference",
    )
    options = parser.parse_args(argv)
    pipeline = MiniPipeline()
    chosen = prepare(pipeline, options.cases, options.pairs)
    print(f"{chosen.size}\n")
    print_table(compare_sparsity(pipeline, chosen, [SETTINGS[name] for name in options.settings]))
