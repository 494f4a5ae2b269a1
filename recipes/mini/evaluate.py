"""What MoA Mini shows, in numbers: people of the test split, whom neither base, adapter nor judges ever saw."""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .ablations import PINNED
from .cases import BATCH, LINE_UP, double_cases, orders, paint_all, single_cases
from .faces import WORK
from .jury import Jury
from .studio import BIAS, Studio


@torch.no_grad()
def evaluate(cases_wanted: int) -> tuple[dict[str, float], Tensor]:
    """All numbers as one flat object, and pictures to look at: rows of (reference, prior only, ours, pinned)."""
    studio, jury = Studio(), Jury()
    singles, doubles = single_cases(jury.line_up, cases_wanted), double_cases(jury.line_up, cases_wanted // 2)

    wanted = orders(studio, jury.people, singles)
    prior, _ = paint_all(studio, wanted, None)
    ours, routes = paint_all(studio, wanted, BIAS)
    pinned, _ = paint_all(studio, wanted, PINNED)
    assert routes is not None
    pairs = orders(studio, jury.people, doubles)
    prior_pairs, _ = paint_all(studio, pairs, None)
    our_pairs, _ = paint_all(studio, pairs, BIAS)

    within, without = jury.router_split(ours, routes)
    numbers = {
        "cases": len(singles),
        "identity_rank1_of_20": jury.identity(ours, singles),
        "identity_rank1_prior": jury.identity(prior, singles),
        "identity_rank1_pinned": jury.identity(pinned, singles),
        "scene_accuracy": jury.place(ours, singles),
        "scene_accuracy_prior": jury.place(prior, singles),
        "background_change": jury.background_change(ours, prior),
        "background_change_pinned": jury.background_change(pinned, prior),
        "router_inside": within,
        "router_outside": without,
        "two_people_cases": len(doubles),
        "two_people_correct": jury.identity(our_pairs, doubles),
        "two_people_prior": jury.identity(prior_pairs, doubles),
        "two_people_chance": 1 / LINE_UP**2,
    }
    shown = min(BATCH, len(singles))
    references = torch.cat([F.interpolate(jury.people.reference(c.people[0]).movedim(-1, 1), size=(128, 128), mode="area")
                            for c in singles[:shown]])  # fmt: skip
    return numbers, torch.stack([references, prior[:shown], ours[:shown], pinned[:shown]])


def table(n: dict[str, float]) -> str:
    """The numbers as a person reads them."""
    ratio = n["router_inside"] / n["router_outside"]
    rows = [
        ("identity: right person of 20", f"{n['identity_rank1_prior']:.3f}", f"{n['identity_rank1_of_20']:.3f}", f"{n['identity_rank1_pinned']:.3f}"),
        ("context: scene recognised", f"{n['scene_accuracy_prior']:.3f}", f"{n['scene_accuracy']:.3f}", ""),
        ("background change (MSE)", "0", f"{n['background_change']:.5f}", f"{n['background_change_pinned']:.5f}"),
        ("router: R_1 inside / outside", "", f"{n['router_inside']:.3f} / {n['router_outside']:.3f} = {ratio:.1f}", ""),
        ("two people: both right, in place", f"{n['two_people_prior']:.3f}", f"{n['two_people_correct']:.3f}", ""),
    ]  # fmt: skip
    head = f"{n['cases']} pictures of one person, {n['two_people_cases']} of two; chance {1 / LINE_UP:.3f} and {n['two_people_chance']:.4f}"
    lines = ["| | prior only | MoA | router pinned to personalised |", "|---|---|---|---|"]
    return "\n".join([head, "", *lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main(argv: list[str]) -> None:
    """Print the table; write the numbers with `--json`, and a sheet of pictures to `.mini/eval_sheet.png`."""
    from PIL import Image

    parser = argparse.ArgumentParser(prog="eval", description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    numbers, sheet = evaluate(options.cases)
    print(table(numbers))
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    WORK.mkdir(exist_ok=True)
    rows = sheet.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    Image.fromarray((rows * 255).round().byte().numpy()).save(WORK / "eval_sheet.png")
