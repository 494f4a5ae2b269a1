"""What MoA Mini shows, in numbers: people of the test split, whom neither base, adapter nor judges ever saw."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .ablations import PINNED
from .dataset import MASK_SIZE, paint
from .faces import SPLITS, VARIANTS, WORK
from .judges import Judges, load_judges, portrait
from .scenes import SCENES
from .studio import BIAS, GRID, START, Order, People, Studio

LINE_UP = 20
"""Identities among whom the right one must be recognised, all of the subject's sex."""
BATCH = 20
RENDERS = 6
"""Real pictures of each person of a line-up, with other clothes and expressions than the reference."""
PLACES = list(SCENES)


@dataclass(frozen=True)
class Case:
    """Somebody to paint, or two, from left to right, somewhere."""

    people: tuple[int, ...]
    scene: int
    seed: int


def line_ups(people: People, split: str = "test") -> dict[str, list[int]]:
    """The first LINE_UP men and women of a split."""
    return {n: [i for i in SPLITS[split] if people.noun(i) == n][:LINE_UP] for n in ("man", "woman")}


def single_cases(line_up: dict[str, list[int]], count: int) -> list[Case]:
    """Everybody in turn, in one scene after the other."""
    everybody = [i for pair in zip(*line_up.values(), strict=True) for i in pair]
    shifted = range(count)
    return [Case((everybody[k % len(everybody)],), (k + k // len(everybody)) % len(PLACES), 1000 + k) for k in shifted]


def double_cases(line_up: dict[str, list[int]], count: int) -> list[Case]:
    """A man and a woman, the woman first every other time."""
    pairs = [(line_up["man"][k % LINE_UP], line_up["woman"][(3 * k + k // LINE_UP) % LINE_UP]) for k in range(count)]
    return [Case(p if k % 2 else p[::-1], k % len(PLACES), 5000 + k) for k, p in enumerate(pairs)]


@torch.no_grad()
def gallery(judges: Judges, people: People, identities: list[int]) -> Tensor:
    """(LINE_UP, E): each person's mean embedding over real renders that share nothing with the reference but the person."""
    rows = []
    for identity in identities:
        rng = np.random.default_rng(identity)
        views = []
        for k in range(RENDERS):
            cutout = people.cutout(identity, 1 + k % (VARIANTS - 1))
            image, masks = paint([cutout], int(rng.integers(len(PLACES))), rng)
            mask = F.avg_pool2d(torch.from_numpy(masks[:1].astype(np.float32)) / 255, 128 // MASK_SIZE)[0]
            views.append(portrait(torch.from_numpy(image.copy()).movedim(-1, 0).float() / 255, mask))
        rows.append(F.normalize(judges.embed(torch.stack(views)).mean(0), dim=0))
    return torch.stack(rows)


def portraits(judges: Judges, picture: Tensor, outline: Tensor, people: int) -> Tensor:
    """Embeddings of whoever stands in each place, from left to right: (3,128,128), (32,32) -> (people,E)."""
    width, views = MASK_SIZE // people, []
    for place in range(people):
        here = torch.zeros_like(outline)
        here[:, place * width : (place + 1) * width] = 1
        views.append(portrait(picture, outline * here))
    return judges.embed(torch.stack(views))


@torch.no_grad()
def recognised(judges: Judges, galleries: dict[str, Tensor], line_up: dict, people: People, pictures: Tensor,
               cases: list[Case]) -> Tensor:  # fmt: skip
    """(cases, people) bool: whether each person is the nearest of the line-up to whoever stands in its place."""
    outlines = judges.people(pictures)
    rows = []
    for picture, outline, case in zip(pictures, outlines, cases, strict=True):
        row = []
        for identity, seen in zip(case.people, portraits(judges, picture, outline, len(case.people)), strict=True):
            noun = people.noun(identity)
            row.append(line_up[noun][int((galleries[noun] @ seen).argmax())] == identity)
        rows.append(row)
    return torch.tensor(rows)


def orders(studio: Studio, people: People, cases: list[Case]) -> list[Order]:
    """Prompts that name scene, man and woman, with reference pictures as a user would load them."""
    made = []
    for case in cases:
        nouns = [people.noun(i) for i in case.people]
        subjects = tuple(studio.subject(people.reference(i), n) for i, n in zip(case.people, nouns, strict=True))
        made.append(Order(" and ".join(f"a {n}" for n in nouns) + f" {PLACES[case.scene]}", subjects, case.seed))
    return made


def batches(items: list) -> Iterator[list]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def paint_all(
    studio: Studio, wanted: list[Order], prior_bias: float | None, start: float = START
) -> tuple[Tensor, Tensor | None]:
    """`Studio.paint` over batches; without an adapter the subjects stay at home."""
    if prior_bias is None:
        wanted = [replace(order, subjects=()) for order in wanted]
    pictures, maps = zip(*(studio.paint(batch, prior_bias, start) for batch in batches(wanted)), strict=True)
    return torch.cat(pictures), None if maps[0] is None else torch.cat(maps)


def background_change(judges: Judges, pictures: Tensor, prior: Tensor) -> float:
    """Mean squared error where neither picture shows people."""
    people = torch.maximum(judges.people(pictures), judges.people(prior))
    outside = (F.interpolate(people[:, None], size=pictures.shape[-2:], mode="bilinear") < 0.2).float()
    return (((pictures - prior) ** 2 * outside).sum() / (outside.sum() * 3)).item()


@torch.no_grad()
def evaluate(cases_wanted: int) -> tuple[dict[str, float], Tensor]:
    """All numbers as one flat object, and pictures to look at: rows of (reference, prior only, ours, pinned)."""
    studio, people, judges = Studio(), People(), load_judges()
    line_up = line_ups(people)
    galleries = {noun: gallery(judges, people, ids) for noun, ids in line_up.items()}
    singles, doubles = single_cases(line_up, cases_wanted), double_cases(line_up, cases_wanted // 2)

    wanted = orders(studio, people, singles)
    prior, _ = paint_all(studio, wanted, None)
    ours, routes = paint_all(studio, wanted, BIAS)
    pinned, _ = paint_all(studio, wanted, PINNED)
    assert routes is not None
    pairs = orders(studio, people, doubles)
    prior_pairs, _ = paint_all(studio, pairs, None)
    our_pairs, _ = paint_all(studio, pairs, BIAS)

    scenes = torch.tensor([case.scene for case in singles])
    inside = F.avg_pool2d(judges.people(ours), MASK_SIZE // GRID[0])

    def rank1(pictures: Tensor, cases: list[Case]) -> Tensor:
        return recognised(judges, galleries, line_up, people, pictures, cases).float()

    numbers = {
        "cases": len(singles),
        "identity_rank1_of_20": rank1(ours, singles).mean().item(),
        "identity_rank1_prior": rank1(prior, singles).mean().item(),
        "identity_rank1_pinned": rank1(pinned, singles).mean().item(),
        "scene_accuracy": (judges.place(ours) == scenes).float().mean().item(),
        "scene_accuracy_prior": (judges.place(prior) == scenes).float().mean().item(),
        "background_change": background_change(judges, ours, prior),
        "background_change_pinned": background_change(judges, pinned, prior),
        "router_inside": ((routes * inside).sum() / inside.sum()).item(),
        "router_outside": ((routes * (1 - inside)).sum() / (1 - inside).sum()).item(),
        "two_people_cases": len(doubles),
        "two_people_correct": rank1(our_pairs, doubles).prod(1).mean().item(),
        "two_people_prior": rank1(prior_pairs, doubles).prod(1).mean().item(),
        "two_people_chance": 1 / LINE_UP**2,
    }
    shown = min(BATCH, len(singles))
    references = torch.cat([F.interpolate(people.reference(c.people[0]).movedim(-1, 1), size=(128, 128), mode="area")
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
