"""The pictures of the README, painted by the bundled model through the host's own sampler."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ...moa_attention.picture import overlay, smooth_to
from ...nodes.apply import bias_from_strength
from ...nodes.visualize import to_mask
from ..sheets import CELL, SHEET, column, row, to_image
from .faces import ROOT, WORK
from .studio import Order, People, Studio

FOLDER = ROOT / "docs" / "images"
HERO = ("a man in a forest", 5, (2760, 2801, 2793, 2782))
"""Prompt, seed, and four men of the test split."""
PAIR = ("a man and a woman on a beach", 5, (2760, 2766), (2789, 2776))
STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def with_inset(picture: Image.Image, reference: Tensor) -> Image.Image:
    """A picture with its reference in the upper right corner."""
    side = reference[0].movedim(-1, 0)
    _, h, w = side.shape
    padded = F.pad(side, ((h - w) // 2, h - w - (h - w) // 2), value=float(side[0, 0, 0]))
    small = to_image(padded, CELL // 3)
    picture = picture.copy()
    ImageDraw.Draw(picture).rectangle((CELL - CELL // 3 - 4, 0, CELL, CELL // 3 + 3), fill=SHEET)
    picture.paste(small, (CELL - CELL // 3, 0))
    return picture


def router_map(picture: Tensor, values: Tensor) -> Image.Image:
    """Heat map over the picture, stretched to its own range."""
    return heat_over(picture, to_mask(values, 0))


def heat_over(picture: Tensor, values: Tensor) -> Image.Image:
    """Heat map (h,w) over the picture (3,128,128): 0 dark, 1 light."""
    return to_image(overlay(picture.movedim(0, -1), smooth_to(values, (128, 128))).movedim(-1, 0))


def hero(studio: Studio, people: People) -> Image.Image:
    """One prompt, one seed: prior only, four people, the router."""
    prompt, seed, men = HERO
    subjects = [studio.subject(people.reference(i), people.noun(i)) for i in men]
    prior, _ = studio.paint([Order(prompt, (), seed)], None)
    ours, maps = zip(*(studio.paint([Order(prompt, (s,), seed)]) for s in subjects), strict=True)
    cells = [("the base model alone", to_image(prior[0]))]
    cells += [("", with_inset(to_image(p[0]), people.reference(i))) for p, i in zip(ours, men, strict=True)]
    return row([*cells, ("where the person speaks", router_map(ours[0][0], torch.cat(maps).mean(0)))])


def pairs(studio: Studio, people: People) -> Image.Image:
    """Two people at once, each on its word; then two others."""
    prompt, seed, *couples = PAIR
    rows = []
    for couple in couples:
        references = [people.reference(i) for i in couple]
        subjects = tuple(studio.subject(r, people.noun(i)) for r, i in zip(references, couple, strict=True))
        prior, _ = studio.paint([Order(prompt, (), seed)], None)
        ours, maps = studio.paint([Order(prompt, subjects, seed)])
        shown = [F.pad(r[0].movedim(-1, 0), (24, 24), value=float(r[0, 0, 0, 0])) for r in references]
        cells = [(f"“{people.noun(i)}”", to_image(p)) for i, p in zip(couple, shown, strict=True)]
        cells += [("the base model alone", to_image(prior[0])), (prompt, to_image(ours[0]))]
        rows.append(row([*cells, ("router", router_map(ours[0], maps[0]))]))
    return column(rows)


def strengths(studio: Studio, people: People) -> Image.Image:
    """One person at rising strength."""
    prompt, seed, men = HERO
    subject = studio.subject(people.reference(men[2]), people.noun(men[2]))
    cells = []
    for strength in STRENGTHS:
        picture, _ = studio.paint([Order(prompt, (subject,), seed)], bias_from_strength(strength))
        cells.append((f"strength {strength:g}", to_image(picture[0])))
    return row(cells)


def curves(target: Path) -> None:
    """Losses of the base and of the adapter, and where the router went, over training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def read(name: str) -> dict[str, list[float]]:
        lines = [json.loads(line) for line in (WORK / name).read_text().splitlines()]
        return {key: [line[key] for line in lines if key in line] for key in lines[0]}

    def smooth(values: list[float]) -> list[float]:
        window = max(1, len(values) // 60)
        return torch.tensor(values).unfold(0, window, 1).mean(1).tolist()

    base, adapter = read("base.jsonl"), read("adapter.jsonl")
    figure, panels = pyplot.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
    panels[0].plot(base["step"], base["loss"])
    panels[0].set(title="base: velocity error", xlabel="step", yscale="log")
    for name in ("reconstruction", "router", "object"):
        values = smooth(adapter[name])
        panels[1].plot(adapter["step"][-len(values) :], torch.tensor(values) / abs(values[0] or 1), label=name)
    panels[1].set(title="adapter: losses, relative to their start", xlabel="step", ylim=(-4, 2))
    panels[1].legend()
    for name, text in (("prior_outside", "R_0 outside the people"), ("personal_inside", "R_1 inside")):
        values = smooth(adapter[name])
        panels[2].plot(adapter["step"][-len(values) :], values, label=text)
    panels[2].set(title="adapter: the router", xlabel="step", ylim=(0, 1))
    panels[2].legend()
    for panel in panels:
        panel.locator_params(axis="x", nbins=6)
    figure.savefig(target, dpi=110)


def main(argv: list[str]) -> None:
    """Write `docs/images/*`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    studio, people = Studio(), People()
    for name, draw in (("hero", hero), ("two_people", pairs), ("strength", strengths)):
        draw(studio, people).save(FOLDER / f"{name}.png", optimize=True)
        print(FOLDER / f"{name}.png")
    if (WORK / "adapter.jsonl").is_file():
        curves(FOLDER / "training.png")
