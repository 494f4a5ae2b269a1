"""The figures of an evaluation: a plot of the measures and a sheet of pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ....moa_attention.pictures import CELL, column, heading, overlay, row, smooth_to, to_image
from ....moa_attention.subjects.reference import fit_to_square
from .gallery import Gallery
from .people import Person
from .protocol import EvaluationCase
from .report import COLUMNS, ROWS
from .score import MOA, Scores

COLOURS = ("#9a9a9a", "#3b6ea5", "#d98841")
ACROSS = 3
SHOWN, SHOWN_PAIRS = 8, 4
"""Rows of the sheet, evenly chosen among the cases."""


def plot(singles: Scores, pairs: Scores, people: Sequence[Person], target: Path) -> None:
    """A panel for each measure: bars for one and for two subjects in each column, a dot for each subject."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    kinds = [(name, s) for name, s in (("one subject", singles), ("two subjects", pairs)) if s.cases]
    shown = [name for name in ROWS if any(name in s.means(c) for _, s in kinds for c in COLUMNS)]
    down = -(-len(shown) // ACROSS)
    figure = Figure(figsize=(4.2 * ACROSS, 2.9 * down), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False)
    for panel, name in zip(panels.flat, shown, strict=False):
        draw_panel(panel, name, [(kind, s) for kind, s in kinds if any(name in s.means(c) for c in COLUMNS)], people)
    for panel in panels.flat[len(shown) :]:
        panel.set_axis_off()
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS]
    dot = Line2D([], [], marker="o", linestyle="", color="#222222", markersize=3)
    figure.legend([*handles, dot], [*COLUMNS.values(), "one subject's mean"], loc="outside lower center", ncols=4)
    figure.savefig(target, dpi=120, facecolor="white")


def draw_panel(panel: Any, name: str, kinds: Sequence[tuple[str, Scores]], people: Sequence[Person]) -> None:
    """One measure."""
    wide = len(COLUMNS) + 1
    for place, (_, scores) in enumerate(kinds):
        for number, label in enumerate(COLUMNS):
            x = place * wide + number
            panel.bar(x, scores.means(label).get(name, 0.0), color=COLOURS[number], width=0.85)
            dots = [v for p in people if (v := scores.means(label, p.name).get(name)) is not None]
            panel.plot([x] * len(dots), dots, "o", color="#222222", markersize=3, alpha=0.6)
    panel.axhline(0, color="#222222", linewidth=0.8)
    panel.set_xlim(-0.7, 2 * wide - 1.3)
    panel.set_xticks([place * wide + (wide - 2) / 2 for place in range(len(kinds))], [kind for kind, _ in kinds])
    panel.tick_params(axis="x", length=0)
    panel.set_title(ROWS[name].label, fontsize=11)
    panel.spines[["top", "right", "bottom"]].set_visible(False)


def draw_sheet(
    singles: Sequence[EvaluationCase], pairs: Sequence[EvaluationCase], gallery: Gallery, target: Path
) -> None:
    """Rows of references, every column's picture, and the router's map, each under its prompt."""
    chosen = [*spread(singles, SHOWN), *spread(pairs, SHOWN_PAIRS)]
    rows = [part for case in chosen for part in (heading(case.text, len(COLUMNS) + 2), row(cells(case, gallery)))]
    column(rows).save(target)


def spread(cases: Sequence[EvaluationCase], count: int) -> list[EvaluationCase]:
    """So many of them from the first to the last."""
    count = min(count, len(cases))
    return [cases[n * (len(cases) - 1) // max(1, count - 1)] for n in range(count)]


def cells(case: EvaluationCase, gallery: Gallery) -> list[tuple[str, Image.Image]]:
    """Captions and pictures of one row."""
    generated = {label: gallery.read(case, label) for label in COLUMNS}
    picture, router_map = generated[MOA]
    assert router_map is not None
    smooth_map = smooth_to(router_map, (picture.shape[1], picture.shape[2]))
    mapped = overlay(picture.movedim(0, -1), smooth_map).movedim(-1, 0)
    return [
        (" and ".join(p.name for p in case.people), square_image(references(case.people))),
        *((text, square_image(generated[label].picture)) for label, text in COLUMNS.items()),
        (f"router: R_1, mean {float(smooth_map.mean()):.2f}", square_image(mapped)),
    ]


def references(people: Sequence[Person]) -> Tensor:
    """One picture, or two side by side, on a white square: -> (3,CELL,CELL)"""
    part = CELL // len(people)
    canvas = torch.ones(3, CELL, CELL)
    for number, person in enumerate(people):
        _, h, w = person.picture.shape
        x, y = max(h - w, 0), max(w - h, 0)
        framed = fit_to_square(F.pad(person.picture, (x // 2, x - x // 2, y // 2, y - y // 2), value=1.0), part)
        top = (CELL - part) // 2
        canvas[:, top : top + part, number * part : (number + 1) * part] = framed
    return canvas


def square_image(picture: Tensor) -> Image.Image:
    """A picture (3,H,W) in [0,1] as a cell."""
    return to_image(picture.movedim(0, -1), CELL)
