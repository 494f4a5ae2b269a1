"""The benchmark's plot: the cost of each variant against the stock model."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .measurements import Measurement

BLUE, RED, GREY = "#1f5fa8", "#c8452f", "#b0b0b0"


def variant_label(row: Measurement) -> str:
    """For the axis, in lines."""
    if row.mode == "sparse":
        return f"{row.routed:.0%} of\nthe pixels"
    subjects = {1: "", 4: "\n4 subjects"}.get(row.subjects, "")
    return {"dense": f"every\npixel{subjects}", "ip-adapter-plus": "IP-Adapter\nPlus"}.get(
        row.mode, row.mode.replace(" ", "\n")
    )


def is_plotted(row: Measurement) -> bool:
    """Further subjects cost so little that only the dense mode is plotted with four."""
    return row.subjects in (0, 1) or (row.mode == "dense" and row.subjects == 4)


def plot_costs(rows: list[Measurement], path: Path) -> None:
    """One panel for each model and size: bars are arithmetic, points are time."""
    places = list(dict.fromkeys((r.base, r.size) for r in rows))
    figure = Figure(figsize=(9, 0.6 + 2.6 * len(places)), layout="constrained")
    panels = figure.subplots(len(places), 1, sharey=True, squeeze=False)
    for axes, (base, size) in zip(panels[:, 0], places, strict=True):
        plot_panel(axes, [r for r in rows if (r.base, r.size) == (base, size) and is_plotted(r)])
        axes.set_title(
            f"{ {'sd15': 'SD1.5', 'sdxl': 'SDXL'}.get(base, base) }, {size} × {size}", loc="left", fontsize=10
        )
    panels[0, 0].legend(frameon=False, fontsize=8.5)
    figure.supylabel("more than the stock model, %", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def plot_panel(axes: Axes, rows: list[Measurement]) -> None:
    """Bars of FLOPs without and with guidance, and points of times with the distance of their quartiles."""
    names = list(dict.fromkeys(variant_label(row) for row in rows))
    for cfg, colour, shift in ((False, GREY, -0.2), (True, BLUE, 0.2)):
        counted = [r for r in rows if r.device == "meta" and r.cfg == cfg and r.flops_ratio is not None]
        heights = [100 * ((r.flops_ratio or 1) - 1) for r in counted]
        label = "arithmetic, with guidance" if cfg else "arithmetic, without guidance"
        bars = axes.bar(
            [names.index(variant_label(r)) + shift for r in counted], heights, 0.38, color=colour, label=label
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=7.5, color=colour)
    for place, marker in zip(sorted({(r.device, r.dtype) for r in rows if r.ratio is not None}), "os^Dv", strict=False):
        timed = [r for r in rows if (r.device, r.dtype) == place and r.ratio is not None]
        across = [names.index(variant_label(r)) + 0.45 for r in timed]  # beside its bar, which has a number above it
        heights = [100 * ((r.ratio or 1) - 1) for r in timed]
        spread = [50 * (r.ratio_spread or 0) for r in timed]
        axes.errorbar(across, heights, spread, fmt=marker, color=RED, ms=5, capsize=3, label=f"time, {' '.join(place)}")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
