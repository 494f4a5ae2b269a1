"""An evaluation for people and for programs: a table, what was left out and why, JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pydantic

from ..settings import Evaluation
from .gallery import PRIOR
from .judges import Judges, Known
from .people import Person
from .score import MOA, VARIANCE, Scores

PINNED = "pinned"
COLUMNS = {PRIOR: "prior only", MOA: "MoA", PINNED: "router pinned to personalised"}


class Row(NamedTuple):
    """A measure in the table."""

    label: str
    digits: int = 3


ROWS = {
    "identity": Row("identity: cosine of faces"),
    "recognised": Row("identity: face recognised (share)"),
    "likeness": Row("likeness: CLIP image to image"),
    "prompt_consistency": Row("prompt consistency: CLIP text to image"),
    "background_change": Row("background change (MSE)", 5),
    VARIANCE: Row("background variance over subjects", 5),
    "router_inside": Row("router: R_1 inside subjects"),
    "router_outside": Row("router: R_0 outside subjects"),
    "copy_paste_face": Row("copy-paste, by face"),
    "copy_paste_look": Row("copy-paste, by CLIP"),
}
"""Measures in the order of the table; defined in measures.py."""


def table(scores: Scores) -> str:
    """Markdown: measures down, columns across; a measure nobody has does not appear."""
    means = {column: scores.means(column) for column in COLUMNS}
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in ROWS.items():
        values = [means[column].get(name) for column in COLUMNS]
        if any(value is not None for value in values):
            cells = ["–" if value is None else f"{value:.{row.digits}f}" for value in values]
            lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def notes(judges: Judges, people: Sequence[Person], known: dict[str, Known], pairs: int) -> list[str]:
    """How to read the numbers, and what is not among them and why."""
    said = []
    if judges.segment is not None:
        said.append("Subjects' regions are the segmenter's, in each picture and in the prior's.")
    else:
        said.append(
            "Where subjects are is taken from MoA's own router, the upper half of its map, in every column: so R_1 inside "
            "and R_0 outside say how sharp the map is, not whether it is in the right place, and background is what the "
            "router takes for it."
        )
    if judges.face is None:
        said.append("Left out: identity, as evaluation.face names no face model.")
    else:
        said.append(
            "Faces are described by face-api's small network, in which strangers have a cosine of 0.8 to 0.9: compare with "
            "the prior's column, never with published figures of FaceNet."
        )
        if faceless := [p.name for p in people if known[p.name].face is None]:
            said.append(f"Left out: identity of {', '.join(faceless)}, as no face was found in their pictures.")
    if judges.clip is None:
        said.append("Left out: prompt consistency and likeness, as evaluation.clip names no CLIP model.")
    if not any(p.other is not None for p in people):
        said.append("Left out: copy-paste, as nobody has another picture (name.other.jpg).")
    if len({p.word for p in people}) == len(people):
        said.append("Left out: background variance over subjects, as no two have the same word.")
    if not pairs:
        said.append("Left out: pairs of subjects, as there are none or evaluation.pairs is 0.")
    return said


def write_up(singles: Scores, pairs: Scores, said: Sequence[str]) -> str:
    """Tables and notes as one text."""
    parts = [f"{len(singles.cases)} pictures of one subject\n\n{table(singles)}"]
    if pairs.cases:
        parts.append(f"{len(pairs.cases)} pictures of two subjects\n\n{table(pairs)}")
    return "\n\n".join([*parts, "\n".join(f"* {line}" for line in said)])


def as_json(wanted: Evaluation, adapter: str, people: Sequence[Person], judges: Judges, singles: Scores, pairs: Scores,
            said: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """Means, means by subject, and every single number."""
    return {
        "settings": pydantic.TypeAdapter(Evaluation).dump_python(wanted, mode="json"),
        "adapter": adapter,
        "regions": "router" if judges.segment is None else "segmenter",
        "one_subject": summary(singles, people),
        "two_subjects": summary(pairs, people),
        "notes": list(said),
    }


def summary(scores: Scores, people: Sequence[Person]) -> dict[str, Any]:
    """Of the cases of one kind."""
    cases = [
        {"prompt": case.text, "people": [p.name for p in case.people], "seed": case.seed, **numbers}
        for case, numbers in scores.cases
    ]
    return {
        "pictures": len(cases),
        "mean": {column: scores.means(column) for column in COLUMNS},
        "by_subject": {p.name: {column: scores.means(column, p.name) for column in COLUMNS} for p in people},
        "cases": cases,
    }
