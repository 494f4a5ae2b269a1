"""The evaluation's cases: identities, scenes and seeds, the same for every measurement on MoA Mini."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data.faces import SPLITS
from ..data.identities import Identities
from ..data.scenes import SCENES
from .pipeline import ImageRequest, MiniPipeline

CANDIDATES = 20
"""Identities of the subject's sex among which the right one must be recognised."""
SCENE_NAMES = list(SCENES)


@dataclass(frozen=True)
class SceneCase:
    """One person or two, from left to right, in a scene."""

    people: tuple[int, ...]
    """Identities."""
    scene: int
    """Index into SCENE_NAMES."""
    seed: int


def candidates(identities: Identities, split: str) -> dict[str, list[int]]:
    """The first CANDIDATES men and women of a split, by noun."""
    return {n: [i for i in SPLITS[split] if identities.noun(i) == n][:CANDIDATES] for n in ("man", "woman")}


def single_cases(by_noun: Mapping[str, list[int]], count: int) -> list[SceneCase]:
    """All candidates in turn, in one scene after the other."""
    people = [i for pair in zip(*by_noun.values(), strict=True) for i in pair]
    scenes, total = len(SCENE_NAMES), len(people)
    return [SceneCase((people[k % total],), (k + k // total) % scenes, 1000 + k) for k in range(count)]


def double_cases(by_noun: Mapping[str, list[int]], count: int) -> list[SceneCase]:
    """A man and a woman, the woman first in every other case."""
    men, women = by_noun["man"], by_noun["woman"]
    pairs = [(men[k % CANDIDATES], women[(3 * k + k // CANDIDATES) % CANDIDATES]) for k in range(count)]
    return [SceneCase(p if k % 2 else p[::-1], k % len(SCENE_NAMES), 5000 + k) for k, p in enumerate(pairs)]


def make_requests(pipeline: MiniPipeline, identities: Identities, cases: Sequence[SceneCase]) -> list[ImageRequest]:
    """Prompts that name the people and the scene, with reference pictures as a user would load them."""
    made = []
    for case in cases:
        nouns = [identities.noun(i) for i in case.people]
        references = [identities.reference(i) for i in case.people]
        subjects = tuple(pipeline.encode_subject(r, n) for r, n in zip(references, nouns, strict=True))
        prompt = " and ".join(f"a {n}" for n in nouns) + f" {SCENE_NAMES[case.scene]}"
        made.append(ImageRequest(prompt, subjects, case.seed))
    return made
