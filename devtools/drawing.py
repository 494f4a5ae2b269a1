"""Boxes and arrows for the figures of the documentation."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

Point = tuple[float, float]

HOST, OURS, PLAIN, LINE = "#fde5cd", "#dbe9f6", "#f4f4f4", "#5b6770"


def box(axes: Axes, center: Point, size: Point, title: str, text: str = "", colour: str = PLAIN) -> None:
    """A box with a bold title and, below it, smaller text."""
    (x, y), (width, height) = center, size
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch((x - width / 2, y - height / 2), width, height, style, facecolor=colour, edgecolor=LINE)
    )
    top = y + height / 2 - 0.18 if text else y
    axes.text(x, top, title, ha="center", va="center", fontsize=11, fontweight="bold")
    axes.text(x, y - 0.15, text, ha="center", va="center", fontsize=9, linespacing=1.2)


def arrow(axes: Axes, start: Point, *waypoints: Point, end: Point) -> None:
    """An arrow from start to end, curved past the waypoints; straight without any."""
    vertices, codes = [start], [Curve.MOVETO]
    for here, then in pairwise(waypoints):
        vertices += [here, ((here[0] + then[0]) / 2, (here[1] + then[1]) / 2)]
    vertices += [*waypoints[-1:], end]
    codes += [Curve.CURVE3 if waypoints else Curve.LINETO] * (len(vertices) - 1)
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(vertices, codes), arrowstyle="-|>", mutation_scale=12, color=LINE, linewidth=1.4, zorder=3
        )
    )
