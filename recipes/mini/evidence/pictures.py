"""The evidence page's pictures: the same people, prompt and noise through several trainings.

`recipes/run.py mini.evidence.pictures` also trains what `mini.evidence.run` has not left in `.mini/`, a quarter of an hour each on one core.
"""

from dataclasses import replace
from typing import NamedTuple

from PIL import Image

from ....moa_attention.pictures import column, row
from ..data.identities import Identities
from ..figures import FOLDER, reference_inset, router_cell
from ..judging.pipeline import ImageRequest, MiniPipeline
from .ablations import ABLATIONS, CLAIMS, CONSISTENT, SINGLE_FASTCOMPOSER
from .measure import in_use
from .run import train_ablation

PEOPLE, PROMPT, SEED = (2760, 2766, 2789), "on a beach", 5
TRAINING = 1
"""The seed of the trainings that are shown."""


class PictureRow(NamedTuple):
    """A training and its settings in use."""

    title: str
    ablation: str | None = None
    """By name; None is the base model alone."""
    kept: bool = False


ROWS = (
    PictureRow("the base model alone"),
    *(PictureRow(name, name) for name in CLAIMS),
    PictureRow(f"{CONSISTENT}, background kept", CONSISTENT, kept=True),
    PictureRow(f"{SINGLE_FASTCOMPOSER}, background kept", SINGLE_FASTCOMPOSER, kept=True),
)


def draw_row(identities: Identities, shown: PictureRow) -> Image.Image:
    """An image of each person with a part of the title, and the router's map of the last one; a single attention has none."""
    ablation = next((a for a in ABLATIONS if a.name == shown.ablation), None)
    pipeline, cells, last = MiniPipeline(train_ablation(ablation, TRAINING) if ablation else None), [], None
    titles = iter(shown.title.split(", "))
    for identity in PEOPLE:
        noun, reference = identities.noun(identity), identities.reference(identity)
        request = ImageRequest(f"a {noun} {PROMPT}", (), SEED)
        if ablation is None:
            images = pipeline.generate_prior([request])
        else:
            request = replace(request, subjects=(pipeline.encode_subject(reference, noun),))
            images, maps = pipeline.generate([request], **in_use(ablation, kept=shown.kept).options(pipeline))
            last = None if ablation.single else router_cell(images[0], maps[0])
        cells.append((next(titles, ""), reference_inset(images[0], reference)))
    return row(cells if last is None else [*cells, ("R_1 of the last person", last)])


def main(argv: list[str]) -> None:
    """Write `docs/images/evidence_pictures.jpg`."""
    identities = Identities()
    column([draw_row(identities, shown) for shown in ROWS]).save(FOLDER / "evidence_pictures.jpg", quality=90)
