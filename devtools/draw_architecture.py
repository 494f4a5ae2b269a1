"""Draws the two figures of `docs/architecture.md`: `.venv/bin/python -m devtools.draw_architecture`.

`docs/images/architecture.png` shows the rooms and their imports as the code has them; `docs/images/attachment.png` shows
one attention before, with and after MoA (`draw_attachment.py`).
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .architecture import levels, rooms
from .draw_attachment import draw_attachment
from .drawing import HOST, LINE, OURS, arrow, box
from .host import ROOT

IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 2.5, 0.98
"""Of a room, in inches."""
STEP_X, STEP_Y = 2.75, 1.4


def draw_rooms(file: Path) -> None:
    """Write the drawing of the rooms as PNG."""
    graph = rooms()
    rows, ways = levels(graph)
    columns = max(map(len, rows))
    place = {
        name: ((column - (len(row) - 1) / 2) * STEP_X, -level * STEP_Y)
        for level, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    figure = Figure(figsize=(columns * STEP_X, len(rows) * STEP_Y + 0.3), layout="constrained")
    axes = figure.subplots()
    for way in ways:
        (start_x, start_y), *waypoints, (end_x, end_y) = [place[name] for name in way]
        arrow(axes, (start_x, start_y - HEIGHT / 2), *waypoints, end=(end_x, end_y + HEIGHT / 2))
    for name, facts in graph.nodes(data=True):
        title, purpose = name if name.endswith(".py") else f"{name}/", textwrap.fill(facts["purpose"], 34)
        box(axes, place[name], (WIDTH, HEIGHT), title, purpose, HOST if facts["host"] else OURS)
    axes.set_xlim(-columns * STEP_X / 2, columns * STEP_X / 2)
    axes.set_ylim(-(len(rows) - 0.5) * STEP_Y - 0.3, STEP_Y / 2)
    axes.set_aspect("equal")
    axes.axis("off")
    legend = [
        Patch(facecolor=HOST, edgecolor=LINE, label="imports ComfyUI"),
        Patch(facecolor=OURS, edgecolor=LINE, label="does not"),
        Line2D([], [], color=LINE, marker="v", label="imports; what follows from other arrows is left out"),
    ]
    axes.legend(handles=legend, loc="lower center", ncols=3, frameon=False, fontsize=10)
    figure.savefig(file, dpi=110)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, draw in {"architecture": draw_rooms, "attachment": draw_attachment}.items():
        file = IMAGES / f"{name}.png"
        draw(file)
        print(f"Wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
