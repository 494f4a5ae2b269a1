"""The report of an evaluation: tables, the measures that are left out and why, JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pydantic
from tabulate import tabulate

from ..settings import EvaluationSettings
from .evaluators import Evaluators, ReferenceEmbeddings
from .gallery import PRIOR
from .people import Person
from .score import MOA, VARIANCE, Scores

PINNED = "pinned"
COLUMNS = {PRIOR: "prior only", MOA: "MoA", PINNED: "router pinned to personalised"}


class ReportRow(NamedTuple):
    """A measure in the table."""

    label: str
    digits: int = 3


ROWS = {
    "identity": ReportRow("identity: cosine of faces"),
    "recognised": ReportRow("identity: face recognised (fraction)"),
    "likeness": ReportRow("likeness: CLIP image to image"),
    "prompt_consistency": ReportRow("prompt consistency: CLIP text to image"),
    "background_change": ReportRow("background change (MSE)", 5),
    VARIANCE: ReportRow("background variance over subjects", 5),
    "router_inside": ReportRow("router: R_1 inside subjects"),
    "router_outside": ReportRow("router: R_0 outside subjects"),
    "copy_paste_face": ReportRow("copy-paste, by face"),
    "copy_paste_look": ReportRow("copy-paste, by CLIP"),
}
"""Measures in the order of the table; defined in measures.py."""


def measure_table(scores: Scores) -> str:
    """Markdown: measures down, columns across; a measure without numbers does not appear."""
    means = {column: scores.means(column) for column in COLUMNS}
    rows = [
        [row.label, *(f"{means[c][name]:.{row.digits}f}" if name in means[c] else "–" for c in COLUMNS)]
        for name, row in ROWS.items()
        if any(name in means[column] for column in COLUMNS)
    ]
    return tabulate(rows, ("", *COLUMNS.values()), tablefmt="pipe", disable_numparse=True)


def notes(
    evaluators: Evaluators, people: Sequence[Person], known: dict[str, ReferenceEmbeddings], pairs: int
) -> list[str]:
    """How to read the numbers, and which measures are left out and why."""
    lines = []
    if evaluators.segment is not None:
        lines.append("The subjects' regions come from the segmenter, in each picture and in the base model's.")
    else:
        lines.append(
            "In every column the subjects' regions are the pixels above half of the range of MoA's own router map. R_1 inside "
            "and R_0 outside therefore measure how sharp the map is, not whether it is correct."
        )
    if evaluators.face is None:
        lines.append("Left out: identity, because evaluation.face names no face model.")
    else:
        lines.append(
            "The faces' embeddings come from face-api's small network, in which strangers have a cosine of 0.8 to 0.9. Compare "
            "with the column 'prior only', never with published figures of FaceNet."
        )
        if faceless := [p.name for p in people if known[p.name].face is None]:
            lines.append(f"Left out: identity of {', '.join(faceless)}, because no face was found in their pictures.")
    if evaluators.clip is None:
        lines.append("Left out: prompt consistency and likeness, because evaluation.clip names no CLIP model.")
    if not any(p.other is not None for p in people):
        lines.append("Left out: copy-paste, because no subject has another picture (name.other.jpg).")
    if len({p.word for p in people}) == len(people):
        lines.append("Left out: background variance over subjects, because no two have the same word.")
    if not pairs:
        lines.append("Left out: pairs of subjects, because there are none, or evaluation.pairs is 0.")
    return lines


def write_up(singles: Scores, pairs: Scores, lines: Sequence[str]) -> str:
    """Tables and notes as one text."""
    parts = [f"{len(singles.cases)} pictures of one subject\n\n{measure_table(singles)}"]
    if pairs.cases:
        parts.append(f"{len(pairs.cases)} pictures of two subjects\n\n{measure_table(pairs)}")
    return "\n\n".join([*parts, "\n".join(f"* {line}" for line in lines)])


def as_json(wanted: EvaluationSettings, adapter: str, people: Sequence[Person], evaluators: Evaluators, singles: Scores, pairs: Scores,
            lines: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """Means, means by subject, and every single number."""
    return {
        "settings": pydantic.TypeAdapter(EvaluationSettings).dump_python(wanted, mode="json"),
        "adapter": adapter,
        "regions": "router" if evaluators.segment is None else "segmenter",
        "one_subject": summary(singles, people),
        "two_subjects": summary(pairs, people),
        "notes": list(lines),
    }


def summary(scores: Scores, people: Sequence[Person]) -> dict[str, Any]:
    """Means and numbers of the cases of one kind."""
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
