"""MoA Mini measured on people of the test split, none of whom is in the training data of base, adapter or judges."""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor

from ....moa_attention.pictures import grid, to_image
from ....moa_attention.run.guidance import RAMP
from ..data.faces import WORK
from ..evidence.ablations import PINNED
from .cases import CANDIDATES
from .evaluation_set import EvaluationSet, prepare
from .kept import KeptPictures
from .pipeline import BATCH, MiniPipeline
from .settings import Setting, subject_guidance

KEPT = Setting(ramp=RAMP)
"""*Keep background* as Apply MoA has it by default."""
RUNS_OF_ONE, RUNS_OF_TWO = 4, 3
"""Images of each case: the prior's, MoA's, with *keep background*, and with a pinned router for one person."""


def evaluate_mini(singles: int) -> tuple[dict[str, float], Tensor]:
    """All figures as one flat mapping, and example images (5,N,3,128,128): references, prior only, MoA, MoA with *keep
    background*, router pinned."""
    pipeline, doubles = MiniPipeline(), singles // 2
    kept = KeptPictures(pipeline, WORK / "eval", RUNS_OF_ONE * singles + RUNS_OF_TWO * doubles)
    chosen = prepare(pipeline, singles, doubles, kept=kept)
    evaluator, prior, requests = chosen.evaluator, chosen.prior, chosen.single_requests
    ours, maps = kept.generate("moa", requests)
    background_kept, _ = kept.generate("background-kept", requests, guidance=subject_guidance(pipeline, KEPT))
    pinned, _ = kept.generate("pinned", requests, PINNED)
    inside, outside = evaluator.router_split(ours, maps)
    figures = {
        "cases": len(chosen.singles),
        "identity_rank1_of_20": evaluator.identity(ours, chosen.singles),
        "identity_rank1_prior": evaluator.identity(prior, chosen.singles),
        "identity_rank1_pinned": evaluator.identity(pinned, chosen.singles),
        "identity_kept": evaluator.identity(background_kept, chosen.singles),
        "judge_ceiling": evaluator.ceiling(chosen.singles),
        "scene_accuracy": evaluator.scene(ours, chosen.singles),
        "scene_accuracy_prior": evaluator.scene(prior, chosen.singles),
        "background_change": evaluator.background_change(ours, prior),
        "background_change_pinned": evaluator.background_change(pinned, prior),
        "background_change_kept": evaluator.background_change(background_kept, prior),
        "router_inside": inside,
        "router_outside": outside,
        **evaluate_pairs(pipeline, kept, chosen),
    }
    kept.finish()
    shown = min(BATCH, len(chosen.singles))
    columns = (reference_pictures(chosen), prior, ours, background_kept, pinned)
    return figures, torch.stack([column[:shown] for column in columns])


def evaluate_pairs(pipeline: MiniPipeline, kept: KeptPictures, chosen: EvaluationSet) -> dict[str, float]:
    """The figures of two people in one image."""
    ours, _ = kept.generate("moa", chosen.double_requests)
    background_kept, _ = kept.generate(
        "background-kept", chosen.double_requests, guidance=subject_guidance(pipeline, KEPT)
    )
    prior = kept.generate_prior(chosen.double_requests)
    return {
        "two_people_cases": len(chosen.doubles),
        "two_people_correct": chosen.evaluator.identity(ours, chosen.doubles),
        "two_people_prior": chosen.evaluator.identity(prior, chosen.doubles),
        "two_people_kept": chosen.evaluator.identity(background_kept, chosen.doubles),
        "two_people_chance": 1 / CANDIDATES**2,
    }


def reference_pictures(chosen: EvaluationSet) -> Tensor:
    """(N,3,128,128): the reference of each case of one person, stretched to a square."""
    pictures = [chosen.evaluator.identities.reference(case.people[0]) for case in chosen.singles]
    return F.interpolate(torch.cat(pictures).movedim(-1, 1), size=(128, 128), mode="area")


def evaluation_table(n: dict[str, float]) -> str:
    """The figures as a markdown table."""
    shares = f"{n['router_inside']:.3f} / {n['router_outside']:.3f} = {n['router_inside'] / n['router_outside']:.1f}"
    identities = (f"{n[f'identity_{k}']:.3f}" for k in ("rank1_prior", "rank1_of_20", "kept", "rank1_pinned"))
    changes = (f"{n[f'background_change{k}']:.5f}" for k in ("", "_kept", "_pinned"))
    pairs = (f"{n[f'two_people_{k}']:.3f}" for k in ("prior", "correct", "kept"))
    rows = [
        ("identity: right person of 20", *identities),
        ("scene recognised", f"{n['scene_accuracy_prior']:.3f}", f"{n['scene_accuracy']:.3f}", "", ""),
        ("background change (MSE)", "0", *changes),
        ("router: R_1 inside / outside", "", shares, "", ""),
        ("two people: both right, in the right positions", *pairs, ""),
    ]
    sizes = f"{n['cases']} pictures of one person, {n['two_people_cases']} of two"
    chances = f"chance {1 / CANDIDATES:.3f} and {n['two_people_chance']:.4f}; drawn pictures {n['judge_ceiling']:.3f}"
    head = ("", "prior only", "MoA", "keep background", "router pinned to personalised")
    return f"{sizes}; {chances}\n\n{tabulate(rows, head, tablefmt='github', disable_numparse=True)}"


def main(argv: list[str]) -> None:
    """Print the table; write the figures with `--json`, and a sheet of example images to `.mini/eval_sheet.png`."""
    parser = argparse.ArgumentParser(prog="eval", description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    try:
        figures, examples = evaluate_mini(options.cases)
    except KeyboardInterrupt:
        sys.exit("eval: stopped. The same command resumes.")
    print(evaluation_table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    WORK.mkdir(exist_ok=True)
    to_image(grid(examples.movedim(2, -1))).save(WORK / "eval_sheet.png")
