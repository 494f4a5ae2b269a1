"""Two sheets that a person without knowledge of the work judges by eye: `python recipes/run.py mini.judging.eyes`.

* `eyes_people.png`: generated pictures of people of the test split, each beside four references of the same sex, of which
  one is right. Which?
* `eyes_pairs.png`: a drawn picture and a generated one of the same person in the same place, in random order. Is the
  generated one as clean?

`eyes.json` has the answers.
"""

import argparse
import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....moa_attention.pictures import CELL, column, row, to_image
from ..data.faces import WORK
from ..figures import image_cell, padded
from .evaluation_set import EvaluationSet, prepare
from .pipeline import MiniPipeline

CHOICES = 4


def people_sheet(chosen: EvaluationSet, images: Tensor, rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """A row for each case, and the letters of the right references."""
    identities, rows, answers = chosen.evaluator.identities, [], []
    for number, (case, image) in enumerate(zip(chosen.singles, images, strict=True), start=1):
        (person,) = case.people
        others = [i for i in chosen.evaluator.candidates[identities.noun(person)] if i != person]
        shown = rng.permutation([person, *rng.choice(others, CHOICES - 1, replace=False)]).tolist()
        letters = "ABCD"[:CHOICES]
        answers.append(letters[shown.index(person)])
        references = [(f"{number} {letter}", identities.reference(i)) for letter, i in zip(letters, shown, strict=True)]
        cells = [(name, to_image(padded(reference), CELL)) for name, reference in references]
        rows.append(row([(f"picture {number}", image_cell(image)), *cells]))
    return column(rows), answers


def pairs_sheet(chosen: EvaluationSet, images: Tensor, rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """A row for each case, and the letters of the generated pictures."""
    rows, answers = [], []
    for number, (case, image) in enumerate(zip(chosen.singles, images, strict=True), start=1):
        drawn = chosen.evaluator.drawn(case)
        pair = [drawn, image] if rng.random() < 0.5 else [image, drawn]
        answers.append("A" if pair[0] is image else "B")
        rows.append(row([(f"{number} {letter}", image_cell(p)) for letter, p in zip("AB", pair, strict=True)]))
    return column(rows), answers


def main(argv: list[str]) -> None:
    """Write both sheets and the answers to `.mini/`."""
    parser = argparse.ArgumentParser(prog="mini.judging.eyes", description=__doc__)
    parser.add_argument("--cases", type=int, default=20)
    cases = parser.parse_args(argv).cases
    pipeline, rng = MiniPipeline(), np.random.default_rng(0)
    chosen = prepare(pipeline, cases, 0)
    with torch.no_grad():
        images, _ = pipeline.generate(chosen.single_requests)
    people, right = people_sheet(chosen, images, rng)
    pairs, generated = pairs_sheet(chosen, images, rng)
    people.save(WORK / "eyes_people.png", optimize=True)
    pairs.save(WORK / "eyes_pairs.png", optimize=True)
    answers = {"eyes_people": right, "eyes_pairs": generated}
    (WORK / "eyes.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
