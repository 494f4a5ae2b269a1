"""The evidence page's pictures: the same people, prompt and noise through several trainings.

`recipes/run.py mini.evidence_pictures` trains what `mini.evidence` has not left in `.mini/`, half an hour each.
"""

from typing import NamedTuple

import torch
from PIL import Image

from ..sheets import column, row, to_image
from .ablations import PINNED, VARIANTS
from .evidence import train_variant
from .figures import FOLDER, heat_over, with_inset
from .studio import BIAS, START, Order, People, Studio

PEOPLE, PROMPT, SEED = (2760, 2766, 2789), "on a beach", 5
SINGLE = "single fine-tuned attention"


class Row(NamedTuple):
    """A training, and the settings that it is painted with: strength as a bias of the prior, and start."""

    title: str
    variant: str | None = None
    seed: int = 0
    bias: float | None = None
    start: float = 0.0


ROWS = (
    Row("the base model alone"),
    Row("full", "full", bias=0.0),
    Row("no router loss", "no router loss", 1, 0.0),
    Row(SINGLE, SINGLE, bias=PINNED),
    Row("full, in use", "full", bias=BIAS, start=START),
    Row("single, in use", SINGLE, bias=PINNED, start=START),
)


def painted(people: People, shown: Row) -> Image.Image:
    """Everybody, and where the last one spoke."""
    trained = next((v for v in VARIANTS if v.name == shown.variant), None)
    studio = Studio(train_variant(trained, shown.seed) if trained else None)
    made = []
    for identity in PEOPLE:
        noun, reference = people.noun(identity), people.reference(identity)
        subjects = (studio.subject(reference, noun),) if trained else ()
        picture, routes = studio.paint([Order(f"a {noun} {PROMPT}", subjects, SEED)], shown.bias, shown.start)
        made.append((with_inset(to_image(picture[0]), reference), picture, routes))
    titles = (shown.title, *("" for _ in PEOPLE[1:]))
    cells = [(title, image) for title, (image, _, _) in zip(titles, made, strict=True)]
    _, picture, routes = made[-1]
    return row(cells if routes is None else [*cells, ("R_1, the last one's", heat_over(picture[0], routes[0]))])


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Write `docs/images/evidence_pictures.png`."""
    people = People()
    column([painted(people, shown) for shown in ROWS]).save(FOLDER / "evidence_pictures.png", optimize=True)
