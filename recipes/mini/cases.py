"""Whom to paint, where and with which noise: the same pictures for everything that is measured of MoA Mini."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .faces import SPLITS
from .scenes import SCENES
from .studio import START, Order, People, Studio

LINE_UP = 20
"""Identities among whom the right one must be recognised, all of the subject's sex."""
BATCH = 20
PLACES = list(SCENES)


@dataclass(frozen=True)
class Case:
    """Somebody to paint, or two, from left to right, somewhere."""

    people: tuple[int, ...]
    scene: int
    seed: int


def line_ups(people: People, split: str) -> dict[str, list[int]]:
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
