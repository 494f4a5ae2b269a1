"""From pictures to numbers: each measure of each case and column, and their means."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....moa_attention.pictures import smooth_to
from . import measures
from .evaluators import Evaluators, ReferenceEmbeddings, crop_to_region
from .gallery import PRIOR, Gallery, GeneratedPicture
from .protocol import EvaluationCase

MOA = "moa"
Numbers = dict[str, float]
VARIANCE = "background_variance"


@dataclass
class Scores:
    """All measured numbers."""

    cases: list[tuple[EvaluationCase, dict[str, Numbers]]] = field(default_factory=list)
    """For each case, numbers by column."""
    groups: list[dict[str, Numbers]] = field(default_factory=list)
    """For each prompt and seed that several subjects share, numbers by column."""

    def means(self, column: str, person: str | None = None) -> Numbers:
        """Over all cases, or those of one subject; measures without a number are not in it."""
        rows = [n[column] for case, n in self.cases if person is None or person in {p.name for p in case.people}]
        return mean_numbers(rows) | ({} if person else mean_numbers([group[column] for group in self.groups]))


def mean_numbers(rows: Iterable[Numbers]) -> Numbers:
    """The mean of each measure over the rows that have it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def grouped(cases: Sequence[EvaluationCase]) -> list[list[EvaluationCase]]:
    """Cases that share a picture of the base model."""
    groups: dict[tuple[str, int], list[EvaluationCase]] = {}
    for case in cases:
        groups.setdefault((case.text, case.seed), []).append(case)
    return list(groups.values())


def score_group(
    scores: Scores,
    group: Sequence[EvaluationCase],
    gallery: Gallery,
    evaluators: Evaluators,
    known: Mapping[str, ReferenceEmbeddings],
) -> None:
    """Measure the cases of one text and seed, and the variance of their backgrounds."""
    pictures: dict[str, list[Tensor]] = {column: [] for column in gallery.columns}
    background: dict[str, Tensor] = {}
    for case in group:
        generated = {column: gallery.read(case, column) for column in gallery.columns}
        people = subject_regions(generated, evaluators)
        numbers = {}
        for column, (picture, router_map) in generated.items():
            outside = ~(people[column] | people[PRIOR])
            numbers[column] = router(router_map, people[column]) | known_values(
                {"background_change": measures.background_change(picture, generated[PRIOR].picture, outside)}
            )
            numbers[column] |= likeness(case, picture, people[column], evaluators, [known[p.name] for p in case.people])
            pictures[column].append(picture)
            background[column] = background.get(column, torch.ones_like(outside)) & outside
        scores.cases.append((case, numbers))
    if len(group) > 1:
        shared = {c: {VARIANCE: measures.background_variance(pictures[c], background[c])} for c in pictures}
        scores.groups.append({column: known_values(numbers) for column, numbers in shared.items()})


def subject_regions(generated: Mapping[str, GeneratedPicture], evaluators: Evaluators) -> dict[str, Tensor]:
    """The subjects' region in each column: (H,W) bool. Without a segmenter, MoA's router decides for all columns."""
    router_map = generated[MOA].router_map
    assert router_map is not None
    return {column: evaluators.subjects(picture, router_map) for column, (picture, _) in generated.items()}


def router(router_map: Tensor | None, people: Tensor) -> Numbers:
    """Mean R_1 inside the subjects, mean R_0 outside."""
    if router_map is None:
        return {}
    values = smooth_to(router_map, (people.shape[0], people.shape[1]))
    inside, outside = measures.mean_inside(values, people), measures.mean_inside(1 - values, ~people)
    return known_values({"router_inside": inside, "router_outside": outside})


def likeness(
    case: EvaluationCase, picture: Tensor, people: Tensor, evaluators: Evaluators, known: Sequence[ReferenceEmbeddings]
) -> Numbers:
    """Faces and CLIP embeddings against the references and the prompt."""
    values: dict[str, float | None] = {}
    if evaluators.face and (faces := [k.face for k in known if k.face is not None]) and len(faces) == len(known):
        found = evaluators.face(picture)
        found = found[:1] if len(known) == 1 else found
        values["identity"] = measures.identity(found, torch.stack(faces))
        values["recognised"] = measures.recognised(found, torch.stack(faces), evaluators.face.SAME)
        if len(known) == 1 and len(found) and known[0].other_face is not None:
            values["copy_paste_face"] = measures.copy_paste(found[0], faces[0], known[0].other_face)
    if evaluators.clip:
        values["prompt_consistency"] = measures.cosine(
            evaluators.clip.picture(picture), evaluators.clip.text(case.text)
        )
        if len(known) == 1 and known[0].clip_embedding is not None:
            embedding = evaluators.clip.picture(crop_to_region(picture, people))
            values["likeness"] = measures.cosine(embedding, known[0].clip_embedding)
            if known[0].other_clip_embedding is not None:
                values["copy_paste_look"] = measures.copy_paste(
                    embedding, known[0].clip_embedding, known[0].other_clip_embedding
                )
    return known_values(values)


def known_values(values: Mapping[str, float | None]) -> Numbers:
    """Without the measures that have no number."""
    return {name: value for name, value in values.items() if value is not None}
