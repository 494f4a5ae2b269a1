"""The evidence page's pictures: the same people, prompt and noise through several trainings.

`recipes/run.py mini.evidence.pictures` also trains what `mini.evidence.run` has not left in `.mini/`, half an hour each.
"""

from dataclasses import replace
from typing import NamedTuple

from PIL import Image

from ....moa_attention.pictures import column, row
from ..data.identities import Identities
from ..figures import FOLDER, reference_inset, router_cell
from ..judging.pipeline import PRIOR_BIAS, START, ImageRequest, MiniPipeline
from .ablations import ABLATIONS, PINNED
from .run import train_ablation

PEOPLE, PROMPT, SEED = (2760, 2766, 2789), "on a beach", 5
SINGLE = "single fine-tuned attention"


class PictureRow(NamedTuple):
    """A training and its settings in use."""

    title: str
    ablation: str | None = None
    """By name; None is the base model alone."""
    seed: int = 0
    prior_bias: float = 0.0
    start: float = 0.0


ROWS = (
    PictureRow("the base model alone"),
    PictureRow("full", "full"),
    PictureRow("no router loss", "no router loss", 1),
    PictureRow(SINGLE, SINGLE, prior_bias=PINNED),
    PictureRow("full, in use", "full", prior_bias=PRIOR_BIAS, start=START),
    PictureRow("single, in use", SINGLE, prior_bias=PINNED, start=START),
)


def draw_row(identities: Identities, shown: PictureRow) -> Image.Image:
    """An image of each person, and the router's map of the last one."""
    ablation = next((a for a in ABLATIONS if a.name == shown.ablation), None)
    pipeline, cells, last = MiniPipeline(train_ablation(ablation, shown.seed) if ablation else None), [], None
    for identity in PEOPLE:
        noun, reference = identities.noun(identity), identities.reference(identity)
        request = ImageRequest(f"a {noun} {PROMPT}", (), SEED)
        if ablation is None:
            images = pipeline.generate_prior([request])
        else:
            request = replace(request, subjects=(pipeline.encode_subject(reference, noun),))
            images, maps = pipeline.generate([request], shown.prior_bias, shown.start)
            last = router_cell(images[0], maps[0])
        cells.append(("" if cells else shown.title, reference_inset(images[0], reference)))
    return row(cells if last is None else [*cells, ("R_1 of the last person", last)])


def main(argv: list[str]) -> None:
    """Write `docs/images/evidence_pictures.png`."""
    identities = Identities()
    column([draw_row(identities, shown) for shown in ROWS]).save(FOLDER / "evidence_pictures.png", optimize=True)
