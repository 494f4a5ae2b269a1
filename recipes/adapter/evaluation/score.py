"""From pictures to numbers: what each measure says of each case and column, and their means."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....moa_attention.picture import smooth_to
from . import measures
from .gallery import PRIOR, Gallery, Painted
from .judges import Judges, Known, crop
from .protocol import Case

MOA = "moa"
Numbers = dict[str, float]
VARIANCE = "background_variance"


@dataclass
class Scores:
    """Everything that was measured."""

    cases: list[tuple[Case, dict[str, Numbers]]] = field(default_factory=list)
    """For each case, numbers by column."""
    groups: list[dict[str, Numbers]] = field(default_factory=list)
    """For each prompt and seed that several subjects share, numbers by column."""

    def means(self, column: str, person: str | None = None) -> Numbers:
        """Over all cases, or those of one subject; what was never measured is not in it."""
        rows = [n[column] for case, n in self.cases if person is None or person in {p.name for p in case.people}]
        return mean(rows) | ({} if person else mean([group[column] for group in self.groups]))


def mean(rows: Iterable[Numbers]) -> Numbers:
    """Of each number over the rows that have it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def grouped(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases whose base pictures are one and the same."""
    groups: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.text, case.seed), []).append(case)
    return list(groups.values())


def score_group(
    scores: Scores, group: Sequence[Case], gallery: Gallery, judges: Judges, known: Mapping[str, Known]
) -> None:
    """Measure cases of one text and seed, and what their backgrounds have in common."""
    pictures: dict[str, list[Tensor]] = {column: [] for column in gallery.columns}
    nobody: dict[str, Tensor] = {}
    for case in group:
        painted = {column: gallery.read(case, column) for column in gallery.columns}
        people = regions(painted, judges)
        numbers = {}
        for column, (picture, spoke) in painted.items():
            outside = ~(people[column] | people[PRIOR])
            numbers[column] = router(spoke, people[column]) | known_values(
                {"background_change": measures.background_change(picture, painted[PRIOR].picture, outside)}
            )
            numbers[column] |= likeness(case, picture, people[column], judges, [known[p.name] for p in case.people])
            pictures[column].append(picture)
            nobody[column] = nobody.get(column, torch.ones_like(outside)) & outside
        scores.cases.append((case, numbers))
    if len(group) > 1:
        shared = {c: {VARIANCE: measures.background_variance(pictures[c], nobody[c])} for c in pictures}
        scores.groups.append({column: known_values(numbers) for column, numbers in shared.items()})


def regions(painted: Mapping[str, Painted], judges: Judges) -> dict[str, Tensor]:
    """Where the subjects are in each column: (H,W) bool. Without a segmenter, where MoA's router says, in all of them."""
    spoke = painted[MOA].spoke
    assert spoke is not None
    return {column: judges.subjects(picture, spoke) for column, (picture, _) in painted.items()}


def router(spoke: Tensor | None, people: Tensor) -> Numbers:
    """R_1 where the subjects are, R_0 elsewhere."""
    if spoke is None:
        return {}
    values = smooth_to(spoke, (people.shape[0], people.shape[1]))
    inside, outside = measures.mean_inside(values, people), measures.mean_inside(1 - values, ~people)
    return known_values({"router_inside": inside, "router_outside": outside})


def likeness(case: Case, picture: Tensor, people: Tensor, judges: Judges, known: Sequence[Known]) -> Numbers:
    """Faces, looks and words against the references and the prompt."""
    values: dict[str, float | None] = {}
    if judges.face and (faces := [k.face for k in known if k.face is not None]) and len(faces) == len(known):
        found = judges.face(picture)
        found = found[:1] if len(known) == 1 else found
        values["identity"] = measures.identity(found, torch.stack(faces))
        values["recognised"] = measures.recognised(found, torch.stack(faces), judges.face.SAME)
        if len(known) == 1 and len(found) and known[0].other_face is not None:
            values["copy_paste_face"] = measures.copy_paste(found[0], faces[0], known[0].other_face)
    if judges.clip:
        values["prompt_consistency"] = measures.cosine(judges.clip.picture(picture), judges.clip.text(case.text))
        if len(known) == 1 and known[0].look is not None:
            look = judges.clip.picture(crop(picture, people))
            values["likeness"] = measures.cosine(look, known[0].look)
            if known[0].other_look is not None:
                values["copy_paste_look"] = measures.copy_paste(look, known[0].look, known[0].other_look)
    return known_values(values)


def known_values(values: Mapping[str, float | None]) -> Numbers:
    """Without what could not be said."""
    return {name: value for name, value in values.items() if value is not None}
