"""The evidence page's pictures: the same people, prompt and noise through several trainings.

`recipes/run.py mini.evidence_pictures` trains what `mini.evidence` has not left in `.mini/`, half an hour each.
"""

import torch
from PIL import Image

from ...moa_attention.picture import overlay, smooth_to
from ..sheets import column, row, to_image
from .ablations import VARIANTS, Variant
from .dataset import SIZE
from .evidence import train_variant
from .figures import FOLDER, with_inset
from .studio import Order, People, Studio

PEOPLE, PROMPT, SEED = (2760, 2766, 2789), "on a beach", 5
PAINTED = {"full": 0, "no router loss": 1, "single fine-tuned attention": 0}
"""Which training of a variant is shown."""


def painted(people: People, variant: Variant | None) -> Image.Image:
    """A row: everybody, and where they spoke; without a variant, the base model."""
    studio = Studio(train_variant(variant, PAINTED[variant.name]) if variant else None)
    bias = variant.prior_bias if variant else None
    cells, maps = [], []
    for identity in PEOPLE:
        noun, reference = people.noun(identity), people.reference(identity)
        subjects = (studio.subject(reference, noun),) if variant else ()
        picture, routes = studio.paint([Order(f"a {noun} {PROMPT}", subjects, SEED)], bias, 0.0)
        cells.append(("", with_inset(to_image(picture[0]), reference)))
        if routes is not None:
            spoke = overlay(picture[0].movedim(0, -1), smooth_to(routes[0], (SIZE, SIZE)))
            maps.append(("R_1, the last one's", to_image(spoke.movedim(-1, 0))))
    cells[0] = (variant.name if variant else "the base model alone", cells[0][1])
    return row([*cells, *maps[-1:]])


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Write `docs/images/evidence_pictures.png`."""
    people = People()
    variants = [None, *(v for v in VARIANTS if v.name in PAINTED)]
    column([painted(people, variant) for variant in variants]).save(FOLDER / "evidence_pictures.png", optimize=True)
